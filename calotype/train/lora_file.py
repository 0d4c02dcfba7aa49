"""The file of a LoRA: which names its layers have, and what it says of itself.

Its strength is in its weights: alpha / rank is folded into them, and every alpha that is written is the rank. So
programs that read an alpha and those that don't scale by the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from calotype.models.spec import ModelSpec
from calotype.train.kohya import Adapter, to_kohya
from calotype.train.networks import network_of

__all__ = ["write_lora"]


def write_lora(
    file: Path,
    adapters: Mapping[str, Adapter],
    network: Any,
    spec: ModelSpec,
    described: Mapping[str, Any],
    *,
    format: str | None,
    title: str,
) -> None:
    """Writes a LoRA.

    Args:
        file: Where to.
        adapters: By diffusers' names of the layers; alpha is folded in.
        network: What they are of.
        spec: The model.
        described: peft's own description of the adapters, as plain values; its `lora_alpha` is the rank.
        format: `kohya`, `diffusers`, or None for the one that most programs read.
        title: What the file calls itself.

    Raises:
        ConfigError: A layer has no name in the layout.
    """
    row = network_of(spec)
    metadata = {
        "format": "pt",
        "ss_network_dim": str(described["r"]),
        "ss_network_alpha": str(described["r"]),
        "ss_output_name": title,
        "ss_v2": "False",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
    }
    if row.kohya is not None:
        metadata["ss_base_model_version"] = row.kohya.base_model
    if spec.architecture is not None:
        metadata["modelspec.architecture"] = f"{spec.architecture}/lora"
    if (format or row.lora_format) == "kohya":
        tensors = to_kohya(adapters, network, family=spec.family)
        assert row.kohya is not None  # to_kohya refuses a family without
        metadata["ss_network_module"] = row.kohya.module
    else:
        tensors = _diffusers(adapters, row.component)
        plain = {f"{row.component}.{k}": sorted(v) if isinstance(v, set) else v for k, v in described.items()}
        metadata["lora_adapter_metadata"] = json.dumps(plain, sort_keys=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, metadata=metadata)


def _diffusers(adapters: Mapping[str, Adapter], component: str) -> dict[str, Tensor]:
    """As diffusers' own scripts name them: peft's names, for a U-Net `lora.down` and `lora.up`."""
    down, up = ("lora_A", "lora_B") if component == "transformer" else ("lora.down", "lora.up")
    tensors = {}
    for layer, adapter in adapters.items():
        tensors[f"{component}.{layer}.{down}.weight"] = adapter.down
        tensors[f"{component}.{layer}.{up}.weight"] = adapter.up
    return tensors
