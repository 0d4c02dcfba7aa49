"""What a command needs of a repository: the command that gets it, its bytes, and their progress."""

from __future__ import annotations

import itertools
import re
import shlex
import time

import pytest

from calotype.models import downloads
from calotype.models.downloads import download_bytes, downloading, ways_to_get
from calotype.models.registry import get_spec, list_families


def test_training_needs_the_network_and_encoding_does_not():
    spec = get_spec("flux.1-dev")
    encode, train = ways_to_get(spec), ways_to_get(spec, network=True)
    assert "(without its network, 9.9 GB)" in encode and "(with the network, 33.7 GB)" in train
    assert '--exclude "transformer/*"' in encode and "transformer" not in train
    assert all("https://huggingface.co/black-forest-labs/FLUX.1-dev" in text for text in (encode, train))
    assert "owner/other" in ways_to_get(None, "owner/other") and "GB" not in ways_to_get(None, "owner/other")


@pytest.mark.parametrize("network", [False, True])
def test_the_command_gets_the_files_that_diffusers_loads(network):
    """`hf download` chooses files as `filter_repo_objects` does."""
    from huggingface_hub.utils import filter_repo_objects

    command = shlex.split(re.search("`(hf download.*?)`", ways_to_get(get_spec("sdxl"), network=network))[1])
    given = {name: [] for name in ("--include", "--exclude")}
    for name, value in itertools.pairwise(command):
        given.get(name, []).append(value)
    names = ["model_index.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt"]
    network_files = ["unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
    others = ["sd_xl_base_1.0.safetensors", "unet/model.onnx", "vae/diffusion_pytorch_model.fp16.safetensors", "a.bin"]
    found = filter_repo_objects(
        [*names, *network_files, *others], allow_patterns=given["--include"], ignore_patterns=given["--exclude"]
    )
    assert list(found) == [*names, *(network_files if network else [])]


def test_every_model_that_is_trained_says_its_bytes():
    specs = [spec for family in list_families() if family.network is not None for spec in family.models]
    assert len(specs) > 5
    for spec in specs:
        frozen, whole = (download_bytes(spec, network=network) for network in (False, True))
        assert frozen is not None and whole is not None and 5e8 < frozen < whole < 5e10
    assert download_bytes(get_spec("qwen-image"), network=True) is None


def test_a_download_shows_its_bytes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(downloads, "_INTERVAL", 0.01)
    monkeypatch.setattr("calotype.progress._LINE_EVERY", 0.02)
    blobs = tmp_path / "models--owner--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "before").write_bytes(bytes(700))
    with downloading("owner/model", 4_000):
        (blobs / "part.incomplete").write_bytes(bytes(2_000))
        limit = time.monotonic() + 20
        while "2.0 kB of 4.0 kB" not in (said := capsys.readouterr().err) and time.monotonic() < limit:
            time.sleep(0.02)
    assert "downloading owner/model: 2.0 kB of 4.0 kB" in said
