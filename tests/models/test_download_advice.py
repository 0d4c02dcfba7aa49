"""What a command needs of a repository: the command that gets it, its bytes, and their progress."""

from __future__ import annotations

import itertools
import re
import shlex
import time

import diffusers
import pytest
import torch
import transformers

from calotype.models import downloads, registry
from calotype.models.downloads import download_bytes, downloading, ways_to_get
from calotype.models.registry import get_spec, list_families


def test_training_needs_the_network_and_encoding_does_not():
    spec = get_spec("flux.1-dev")
    encode, train = ways_to_get(spec), ways_to_get(spec, network=True)
    assert "gets 9.9 GB, without its network" in encode and "gets 33.7 GB, with its network" in train
    assert '--exclude "transformer/*"' in encode and "transformer" not in train
    assert all("(if gated, `hf auth login` first): then model: FOLDER" in text for text in (encode, train))
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


def test_every_model_says_its_bytes():
    families = [family for family in list_families() if family.name in registry._built_in()]
    specs = [(spec, family.network is not None) for family in families for spec in family.models]
    assert len(specs) > 12
    for spec, is_trained in specs:
        frozen, whole = (download_bytes(spec, network=network) for network in (False, True))
        assert frozen is not None and 5e8 < frozen < 5e10
        assert (whole is not None and frozen < whole < 5e10) if is_trained else whole is None


@pytest.mark.parametrize("name", ["sana", "pixart-sigma", "chroma"])
def test_bytes_are_those_of_the_classes(name):
    """Counted on the meta device, of the published configs; the larger text encoders take seconds."""
    t5 = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    residual = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    blocks = {"encoder_block_types": residual, "decoder_block_types": residual}
    kl = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    kl |= {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    gemma = {"vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26}
    gemma |= {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
    with torch.device("meta"):
        if name == "sana":
            scaled = {"upsample_block_type": "interpolate", "downsample_block_type": "conv"}
            vae = diffusers.AutoencoderDC(**blocks, **scaled)
            text = transformers.Gemma2Model(transformers.Gemma2Config(**gemma))
        else:
            vae = diffusers.AutoencoderKL(**kl, latent_channels=4 if name == "pixart-sigma" else 16)
            text = transformers.T5EncoderModel(transformers.T5Config(**t5, feed_forward_proj="gated-gelu"))
    count = {part: sum(one.numel() for one in part.parameters()) for part in (vae, text)}
    wide = {"sana": (vae,), "pixart-sigma": (vae, text), "chroma": ()}[name]  # in float32
    total = sum(number * (4 if part in wide else 2) for part, number in count.items())
    assert download_bytes(get_spec(name), network=False) == pytest.approx(total, rel=0.005)


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
