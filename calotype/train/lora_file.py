"""Write LoRA files: the names of their layers, in diffusers' layout and in kohya's, and their metadata.

alpha / rank is folded into the weights, and every alpha in the file is the rank, so programs that read an alpha and
those that ignore it apply the same strength.

A name in kohya's layout (sd-scripts) is `lora_unet_` and the layer's path in the model's original code, dots as `_`; SD
1.5 has diffusers' paths. The original code of FLUX.1 and SD3 joins several of diffusers' layers into one (`qkv`). Their
adapters become one of the summed rank with a block-diagonal `lora_up`, which computes the same. docs/train.md lists
the programs that read each layout, with sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from calotype.errors import ConfigError
from calotype.models.network import Kohya
from calotype.models.registry import get_family
from calotype.models.spec import ModelSpec
from calotype.train.networks import network_of

__all__ = ["Adapter", "kohya_paths", "layers_by_name", "to_kohya", "write_lora"]


class Adapter(NamedTuple):
    """A low-rank update of one layer's weight: up @ down."""

    down: Tensor
    """(rank, in), or (rank, in, height, width) of a convolution."""
    up: Tensor
    """(out, rank), or (out, rank, 1, 1)."""


def write_lora(
    file: Path,
    adapters: Mapping[str, Adapter],
    network: Any,
    spec: ModelSpec,
    peft_config: Mapping[str, Any],
    *,
    format: str | None,
    title: str,
) -> None:
    """Write a LoRA file.

    Args:
        file: The path.
        adapters: The adapters, by diffusers' names of the layers; alpha is folded in.
        network: The diffusers network that they adapt.
        spec: The model.
        peft_config: peft's description of the adapters, as plain values; its `lora_alpha` is the rank.
        format: `kohya`, `diffusers`, or None for the layout that most programs read for the family.
        title: The file's title in its metadata.

    Raises:
        ConfigError: A layer has no name in the layout.
    """
    row = network_of(spec)
    metadata = {
        "format": "pt",
        "ss_network_dim": str(peft_config["r"]),
        "ss_network_alpha": str(peft_config["r"]),
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
        tensors = _to_diffusers(adapters, row.component)
        plain = {f"{row.component}.{k}": sorted(v) if isinstance(v, set) else v for k, v in peft_config.items()}
        metadata["lora_adapter_metadata"] = json.dumps(plain, sort_keys=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, metadata=metadata)


def kohya_paths(layers: Iterable[str], network: Any, *, family: str) -> dict[str, tuple[str, ...]]:
    """Map the original code's paths of layers to the diffusers layers that each of them joins.

    Raises:
        ConfigError: The family or a layer has no name in kohya's layout.
    """
    kohya = _kohya(family)
    if kohya is None:
        raise ConfigError(f"train.lora_format: kohya's layout has no names for the family {family}; expected diffusers")
    found: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        original = kohya.original_layer(layer, network.config)
        if original is None:
            raise ConfigError(
                f"train.lora_targets: kohya's layout has no name for {layer}; lora_format: diffusers has one"
            )
        found[original.path] = original.layers
    return found


def layers_by_name(layers: Iterable[str], network: Any, *, family: str) -> dict[str, tuple[str, ...]]:
    """Map the names that a LoRA file may use for layers, dots as `_`, to diffusers layers.

    Returns:
        diffusers' path and the original code's → the layers that it joins, in the order of its output rows.
    """
    layers, kohya = list(layers), _kohya(family)
    found: dict[str, tuple[str, ...]] = {layer.replace(".", "_"): (layer,) for layer in layers}
    for layer in layers:
        if kohya is not None and (original := kohya.original_layer(layer, network.config)) is not None:
            found.setdefault(original.path.replace(".", "_"), original.layers)
    return found


def to_kohya(adapters: Mapping[str, Adapter], network: Any, *, family: str) -> dict[str, Tensor]:
    """Return the tensors of a LoRA file in kohya's layout; each `alpha` is its adapter's rank.

    Args:
        adapters: The adapters, by diffusers' names of the layers.
        network: The diffusers network; its config and the widths of its layers are read.
        family: Name of the model's family: `sdxl`.

    Raises:
        ConfigError: A layer has no name in this layout.
    """
    tensors: dict[str, Tensor] = {}
    for path, layers in kohya_paths(adapters, network, family=family).items():
        down, up = _joined([adapters.get(one) for one in layers], [_outputs(network, one) for one in layers])
        name = f"lora_unet_{path.replace('.', '_')}"
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = down, up
        tensors[f"{name}.alpha"] = torch.tensor(float(len(down)))
    return tensors


def _to_diffusers(adapters: Mapping[str, Adapter], component: str) -> dict[str, Tensor]:
    """Name the tensors as diffusers' scripts do: peft's names, for a U-Net `lora.down` and `lora.up`."""
    down, up = ("lora_A", "lora_B") if component == "transformer" else ("lora.down", "lora.up")
    tensors = {}
    for layer, adapter in adapters.items():
        tensors[f"{component}.{layer}.{down}.weight"] = adapter.down
        tensors[f"{component}.{layer}.{up}.weight"] = adapter.up
    return tensors


def _kohya(family: str) -> Kohya | None:
    network = get_family(family).network
    return network.kohya if network is not None else None


def _joined(adapters: list[Adapter | None], widths: list[int]) -> Adapter:
    """Join the adapters of layers that the original code joins; zeros where one of them has none."""
    if len(adapters) == 1 and adapters[0] is not None:
        return adapters[0]
    there = [one for one in adapters if one is not None]
    up = there[0].up.new_zeros(sum(widths), sum(len(one.down) for one in there))  # (out, rank), both summed
    row = column = 0
    for one, width in zip(adapters, widths, strict=True):
        if one is not None:
            up[row : row + width, column : column + len(one.down)] = one.up
            column += len(one.down)
        row += width
    return Adapter(torch.cat([one.down for one in there]), up)


def _outputs(network: Any, layer: str) -> int:
    """Return the number of a layer's output features."""
    weight: Tensor = network.get_submodule(layer).weight
    return len(weight)
