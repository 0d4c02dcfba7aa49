"""LoRAs by the names of kohya's sd-scripts: `lora_unet_` and a layer's path in the model's original code, dots as `_`.

SD 1.5 keeps diffusers' own paths there. The original code of FLUX.1 and SD3 has one layer for what are several in
diffusers (`qkv`): these adapters become one of their summed rank, whose `lora_up` is block-diagonal, which computes the
same. docs/train.md has the table of who reads what, and its sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from calotype.errors import ConfigError
from calotype.models.network import Kohya
from calotype.models.registry import get_family

__all__ = ["Adapter", "layers_by_name", "places", "to_kohya"]


class Adapter(NamedTuple):
    """What is added to one layer's weight: up @ down."""

    down: Tensor
    """(rank, in), or (rank, in, height, width) of a convolution."""
    up: Tensor
    """(out, rank), or (out, rank, 1, 1)."""


def places(layers: Iterable[str], network: Any, *, family: str) -> dict[str, tuple[str, ...]]:
    """The paths in the original code that layers have, each with the layers that are one there.

    Raises:
        ConfigError: A layer has none, or the family.
    """
    kohya = _kohya(family)
    if kohya is None:
        raise ConfigError(f"train.lora_format: kohya's layout has no names for the family {family}; expected diffusers")
    found: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        place = kohya.place(layer, network.config)
        if place is None:
            raise ConfigError(
                f"train.lora_targets: kohya's layout has no name for {layer}; lora_format: diffusers has one"
            )
        found[place.path] = place.layers
    return found


def layers_by_name(layers: Iterable[str], network: Any, *, family: str) -> dict[str, tuple[str, ...]]:
    """What a LoRA file may call layers, dots as `_`: diffusers' path, or that in the original code.

    Returns:
        Each name with the layers that are one there, in the order of its output.
    """
    layers, kohya = list(layers), _kohya(family)
    found: dict[str, tuple[str, ...]] = {layer.replace(".", "_"): (layer,) for layer in layers}
    for layer in layers:
        if kohya is not None and (place := kohya.place(layer, network.config)) is not None:
            found.setdefault(place.path.replace(".", "_"), place.layers)
    return found


def to_kohya(adapters: Mapping[str, Adapter], network: Any, *, family: str) -> dict[str, Tensor]:
    """The tensors of a LoRA file. Every `alpha` in it is the adapter's rank, so by 1 is what any program scales by.

    Args:
        adapters: By the layers' names in diffusers.
        network: diffusers' network: its config and its layers' widths are read.
        family: Of the model: `sdxl`.

    Raises:
        ConfigError: A layer has no name there.
    """
    tensors: dict[str, Tensor] = {}
    for path, layers in places(adapters, network, family=family).items():
        down, up = _joined([adapters.get(one) for one in layers], [_outputs(network, one) for one in layers])
        name = f"lora_unet_{path.replace('.', '_')}"
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = down, up
        tensors[f"{name}.alpha"] = torch.tensor(float(len(down)))
    return tensors


def _kohya(family: str) -> Kohya | None:
    network = get_family(family).network
    return network.kohya if network is not None else None


def _joined(adapters: list[Adapter | None], widths: list[int]) -> Adapter:
    """One adapter for the layers that are one in the original code; zeros where one of them has none."""
    if len(adapters) == 1 and adapters[0] is not None:
        return adapters[0]
    there = [one for one in adapters if one is not None]
    up = there[0].up.new_zeros(sum(widths), sum(len(one.down) for one in there))
    row = column = 0
    for one, width in zip(adapters, widths, strict=True):
        if one is not None:
            up[row : row + width, column : column + len(one.down)] = one.up
            column += len(one.down)
        row += width
    return Adapter(torch.cat([one.down for one in there]), up)


def _outputs(network: Any, layer: str) -> int:
    weight: Tensor = network.get_submodule(layer).weight
    return len(weight)
