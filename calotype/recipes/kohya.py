"""LoRAs by the names of kohya's sd-scripts: `lora_unet_` and a layer's path in the model's original code, dots as `_`.

SD 1.5 keeps diffusers' own paths there. The original code of FLUX.1 and SD3 has one layer for what are several in
diffusers (`qkv`): these adapters become one of their summed rank, whose `lora_up` is block-diagonal, which computes the
same. docs/train.md has the table of who reads what, and its sources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from calotype.errors import ConfigError

__all__ = ["Adapter", "layers_by_name", "places", "to_kohya"]


class Adapter(NamedTuple):
    """What is added to one layer's weight: up @ down."""

    down: Tensor
    """(rank, in), or (rank, in, height, width) of a convolution."""
    up: Tensor
    """(out, rank), or (out, rank, 1, 1)."""


class _Place(NamedTuple):
    """Where a layer is in the original code."""

    path: str
    layers: tuple[str, ...]
    """All of diffusers' layers that are one there, in the order of its output."""


def places(layers: Iterable[str], network: Any, *, family: str) -> dict[str, tuple[str, ...]]:
    """The paths in the original code that layers have, each with the layers that are one there.

    Raises:
        ConfigError: A layer has none.
    """
    found: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        place = _PLACES[family](layer, network.config)
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
    layers = list(layers)
    found: dict[str, tuple[str, ...]] = {layer.replace(".", "_"): (layer,) for layer in layers}
    for layer in layers:
        if (place := _PLACES[family](layer, network.config)) is not None:
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


# -- SDXL: the paths of Stability AI's generative-models ----------------------------------------------------------

_RESNET: Final = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_SINGLE: Final = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def _sdxl(layer: str, config: Any) -> _Place | None:
    each = config.layers_per_block + 1
    if layer in _SINGLE:
        path = _SINGLE[layer]
    elif found := re.fullmatch(r"mid_block\.(attentions|resnets)\.(\d+)\.(.+)", layer):
        kind, number, rest = found.groups()
        path = f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}.{_RESNET.get(rest, rest)}"
    elif found := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(attentions|resnets)\.(\d+)\.(.+)", layer):
        side, level, kind, number, rest = found.groups()
        at = int(level) * each + int(number) + (side == "down")
        side = "input" if side == "down" else "output"
        path = f"{side}_blocks.{at}.{1 if kind == 'attentions' else 0}.{_RESNET.get(rest, rest)}"
    elif found := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", layer):
        path = f"input_blocks.{(int(found[1]) + 1) * each}.0.op"
    elif found := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", layer):
        attends = "CrossAttn" in config.up_block_types[int(found[1])]
        path = f"output_blocks.{(int(found[1]) + 1) * each - 1}.{2 if attends else 1}.conv"
    else:
        return None
    return _Place(path, (layer,))


# -- FLUX.1 and SD3: the paths of black-forest-labs/flux and of Stability AI's sd3-ref ----------------------------

_QKV: Final = ("attn.to_q", "attn.to_k", "attn.to_v")
_ADDED: Final = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")

_BLOCKS: Final[Mapping[str, Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]]]] = {
    "flux.1": {
        "transformer_blocks": (
            "double_blocks",
            {
                "img_attn.qkv": _QKV,
                "img_attn.proj": ("attn.to_out.0",),
                "img_mlp.0": ("ff.net.0.proj",),
                "img_mlp.2": ("ff.net.2",),
                "img_mod.lin": ("norm1.linear",),
                "txt_attn.qkv": _ADDED,
                "txt_attn.proj": ("attn.to_add_out",),
                "txt_mlp.0": ("ff_context.net.0.proj",),
                "txt_mlp.2": ("ff_context.net.2",),
                "txt_mod.lin": ("norm1_context.linear",),
            },
        ),
        "single_transformer_blocks": (
            "single_blocks",
            {"linear1": (*_QKV, "proj_mlp"), "linear2": ("proj_out",), "modulation.lin": ("norm.linear",)},
        ),
    },
    "sd3": {
        "transformer_blocks": (
            "joint_blocks",
            {
                "x_block.attn.qkv": _QKV,
                "x_block.attn.proj": ("attn.to_out.0",),
                "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
                "x_block.attn2.proj": ("attn2.to_out.0",),
                "x_block.mlp.fc1": ("ff.net.0.proj",),
                "x_block.mlp.fc2": ("ff.net.2",),
                "context_block.attn.qkv": _ADDED,
                "context_block.attn.proj": ("attn.to_add_out",),
                "context_block.mlp.fc1": ("ff_context.net.0.proj",),
                "context_block.mlp.fc2": ("ff_context.net.2",),
            },
        ),
    },
}


def _in_blocks(layer: str, family: str) -> _Place | None:
    kind, _, rest = layer.partition(".")
    number, _, name = rest.partition(".")
    original, table = _BLOCKS[family].get(kind, ("", {}))
    for path, layers in table.items():
        if name in layers:
            return _Place(f"{original}.{number}.{path}", tuple(f"{kind}.{number}.{one}" for one in layers))
    return None


_PLACES: Final[Mapping[str, Callable[[str, Any], _Place | None]]] = {
    "sd-1": lambda layer, config: _Place(layer, (layer,)),
    "sdxl": lambda layer, config: _sdxl(layer, config),
    "flux.1": lambda layer, config: _in_blocks(layer, "flux.1"),
    "sd3": lambda layer, config: _in_blocks(layer, "sd3"),
}
