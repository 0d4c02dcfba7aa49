"""What is known of each family, and the keys of its records, against values recorded at the first release.

A store that a user has is found by these fingerprints: one that changes makes every record of that family be encoded
again. `python tests/models/test_golden_families.py` prints the values as they are now.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).with_name("golden_families.json")
COMPONENTS = {
    "flux.1": ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    "sd3": ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3"),
    "sdxl": ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
}


def facts(spec: Any) -> dict[str, Any]:
    """All that is known of a model without its files, as plain values."""
    from calotype.models import get_family

    family, encodings = get_family(spec.family), spec.encodings
    network = family.network
    return {
        "hub": list(spec.hub),
        "family": spec.family,
        "resolution": spec.resolution,
        "multiple": spec.multiple,
        "transform": family.transform_class.__name__,
        "tokenizers": [
            {
                name: getattr(tokenizer, name)
                for name in ("subfolder", "kind", "key", "max_length", "limit", "length_option", "pad_token")
            }
            for tokenizer in spec.tokenizers
        ],
        "encodings": {
            name: getattr(spec if "sequence" in name else encodings, name)
            for name in (
                "latent_channels",
                "latent_factor",
                "text_flops",
                "sequence_length",
                "longest_sequence",
                "posterior",
                "autoencoder_flops",
                "text_bytes",
            )
        },
        "texts": [
            {
                "key": output.key,
                "tokens": output.tokens,
                "width": output.width,
                "mask": output.mask,
                "mask_dtype": str(output.mask_dtype).removeprefix("torch.") if output.mask else None,
            }
            for output in encodings.texts
        ],
        "pipelines": list(family.pipelines),
        "load_options": dict(family.load_options),
        "upcast": family.upcast,
        "version": family.version,
        "network": network
        and {
            "lora_targets": list(network.lora_targets),
            "lora_format": network.lora_format,
            "component": network.component,
            "objective": network.objective.__name__,
            "patch": network.patch,
            "conditioning": list(network.conditioning),
            "negative": network.negative,
        },
    }


def pipeline_of(spec: Any, folder: Path, pipeline: str) -> Path:
    """A pipeline's folder with one small file for each component: fingerprints read bytes and load nothing."""
    components = (*COMPONENTS.get(spec.family, ("text_encoder", "tokenizer")), "vae")
    index: dict[str, Any] = {name: ["library", "Class"] for name in components}
    for name in components:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps({"of": name}))
        (folder / name / ("vocab.json" if name.startswith("tokenizer") else "model.safetensors")).write_bytes(b"bytes")
    (folder / "model_index.json").write_text(
        json.dumps(index | {"_class_name": pipeline, "_name_or_path": spec.hub[0]})
    )
    return folder


def fingerprints(spec: Any, folder: Path, pipeline: str) -> dict[str, str]:
    """What every record's key is made of, and one key of each kind."""
    import torch

    from calotype.encodings.frozen import FrozenModels
    from calotype.encodings.keys import scaling_key, text_key

    folder = pipeline_of(spec, folder, pipeline)
    models = FrozenModels(folder)
    assert models.spec.name == spec.name
    mean = FrozenModels(folder, latents="mean", dtype=torch.float32)
    found = {
        "text": models.text_fingerprint,
        "text, float32": mean.text_fingerprint,
        "picture": models.picture_fingerprint,
        "picture, mean, float32": mean.picture_fingerprint,
        "text_key": text_key(models.text_fingerprint, "a cat").hex(),
        "scaling_key": scaling_key(models.picture_fingerprint).hex(),
    }
    if spec.longest_sequence is not None:
        found["text, 64 tokens"] = FrozenModels(folder, max_sequence_length=64).text_fingerprint
    return found


@cache
def golden() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text())
    return found


@pytest.mark.parametrize("name", golden() if GOLDEN.exists() else ())
class TestEveryModel:
    def test_its_facts(self, name):
        from calotype.models import get_spec

        assert facts(get_spec(name)) == golden()[name]["facts"]

    def test_the_keys_of_its_records(self, name, tmp_path):
        from calotype.models import get_spec

        spec, expected = get_spec(name), golden()[name]
        for number, pipeline in enumerate(expected["facts"]["pipelines"]):
            assert fingerprints(spec, tmp_path / str(number), pipeline) == expected["fingerprints"]


def test_no_model_is_missing():
    from calotype.models import list_specs

    assert sorted(golden()) == [spec.name for spec in list_specs()]


def main() -> None:
    import tempfile

    from calotype.models import list_specs

    values = {}
    for spec in list_specs():
        known = facts(spec)
        with tempfile.TemporaryDirectory() as scratch:
            keys = fingerprints(spec, Path(scratch) / "pipeline", known["pipelines"][0])
        values[spec.name] = {"facts": known, "fingerprints": keys}
    json.dump(values, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
