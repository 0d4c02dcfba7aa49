"""A fingerprint changes with every byte that could change a record, and with nothing else."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from calotype.encodings import fingerprint
from calotype.encodings.fingerprint import combine, component_fingerprint
from calotype.errors import ConfigError


@pytest.fixture
def vae(tmp_path) -> Path:
    """A component's folder as `save_pretrained` makes it."""
    folder = tmp_path / "pipeline" / "vae"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKL", "scaling_factor": 0.3611}')
    save_file({"encoder.weight": torch.arange(64, dtype=torch.float32)}, folder / "diffusion_pytorch_model.safetensors")
    return folder


def change_a_weight(file: Path) -> None:
    """Under the same name and size, and with the old time."""
    before = file.stat()
    weights = load_file(file)
    weights["encoder.weight"][7] += 1
    save_file(weights, file)
    assert file.stat().st_size == before.st_size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_changed_weight(vae):
    first = component_fingerprint(vae)
    assert len(first) == 16 and component_fingerprint(vae) == first
    change_a_weight(vae / "diffusion_pytorch_model.safetensors")
    assert component_fingerprint(vae) != first


def test_a_changed_configuration(vae):
    first = component_fingerprint(vae)
    (vae / "config.json").write_text('{"_class_name": "AutoencoderKL", "scaling_factor": 0.3612}')
    assert component_fingerprint(vae) != first


def test_a_tokenizer_s_files(tmp_path):
    """All of them, in folders within too."""
    (tmp_path / "vocab.json").write_text("{}")
    first = component_fingerprint(tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "chat_template.jinja").write_text("cat")
    added = component_fingerprint(tmp_path)
    (tmp_path / "more").rename(tmp_path / "less")
    assert len({first, added, component_fingerprint(tmp_path)}) == 3
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".gitattributes").write_text("*.bin")
    moved = component_fingerprint(tmp_path)
    assert moved == component_fingerprint(tmp_path)
    (tmp_path / "README.md").unlink()
    (tmp_path / ".gitattributes").unlink()
    assert component_fingerprint(tmp_path) == moved


def test_a_moved_folder(vae, tmp_path):
    first = component_fingerprint(vae)
    shutil.copytree(vae, tmp_path / "copy")
    shutil.move(vae.parent, tmp_path / "elsewhere")
    assert component_fingerprint(tmp_path / "copy") == component_fingerprint(tmp_path / "elsewhere" / "vae") == first


def test_links_are_followed(vae, tmp_path):
    """As the hub's cache lays files out: links to blobs, themselves under a linked folder."""
    first = component_fingerprint(vae)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for number, file in enumerate(sorted(vae.iterdir())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(blobs / str(number))
    (tmp_path / "linked").symlink_to(snapshot)
    assert component_fingerprint(tmp_path / "linked") == component_fingerprint(snapshot) == first
    change_a_weight(blobs / "1")
    assert component_fingerprint(snapshot) != first


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "generation_config.json",
        "flax_model.msgpack",
        "model.onnx",
        ".cache/huggingface/download.metadata",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.non_ema.bin",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.safetensors.index.fp16.json",
    ],
)
def test_what_is_not_loaded_does_not_matter(vae, name):
    first = component_fingerprint(vae)
    (vae / name).parent.mkdir(parents=True, exist_ok=True)
    (vae / name).write_bytes(b"later")
    assert component_fingerprint(vae) == first


def test_a_variant_s_weights_are_those_hashed(vae):
    usual = vae / "diffusion_pytorch_model.safetensors"
    first = component_fingerprint(vae)
    assert component_fingerprint(vae, variant="fp16") == first  # it has none, and diffusers loads the usual ones
    shutil.copy(usual, vae / "diffusion_pytorch_model.fp16.safetensors")
    variant = component_fingerprint(vae, variant="fp16")
    assert variant != first == component_fingerprint(vae)
    change_a_weight(usual)
    assert component_fingerprint(vae, variant="fp16") == variant
    change_a_weight(vae / "diffusion_pytorch_model.fp16.safetensors")
    assert component_fingerprint(vae, variant="fp16") != variant


def test_shards_of_a_variant(vae):
    (vae / "model.fp16-00001-of-00002.safetensors").write_bytes(b"one")
    first = component_fingerprint(vae, variant="fp16")
    (vae / "model.fp16-00002-of-00002.safetensors").write_bytes(b"two")
    assert component_fingerprint(vae, variant="fp16") != first


def test_a_folder_without_files(tmp_path):
    with pytest.raises(ConfigError, match="the files of a model or tokenizer were expected there, and it has none"):
        component_fingerprint(tmp_path)


def test_each_file_is_read_once(vae, monkeypatch):
    read: list[str] = []
    real = fingerprint._digest
    monkeypatch.setattr(fingerprint, "_digest", lambda path: read.append(path.name) or real(path))
    first = component_fingerprint(vae)
    assert sorted(read) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert component_fingerprint(vae) == first and len(read) == 2
    change_a_weight(vae / "diffusion_pytorch_model.safetensors")
    component_fingerprint(vae)
    assert read[2:] == ["diffusion_pytorch_model.safetensors"]


def test_without_a_memory_it_is_the_same(vae, monkeypatch, tmp_path):
    first = component_fingerprint(vae)
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "other"))
    assert component_fingerprint(vae) == first
    file = tmp_path / "other" / "weights" / "weights.sqlite3"
    with sqlite3.connect(file) as database:
        database.execute("DELETE FROM files_2")
    database.close()
    assert component_fingerprint(vae) == first
    file.write_bytes(b"this is no database" * 100)
    assert component_fingerprint(vae) == first


def test_parts_keep_their_borders():
    assert combine(["ab", "c"]) != combine(["a", "bc"]) != combine(["abc"])
    assert combine(["ab", b"c"]) == combine([b"ab", "c"])
