"""How a family's network is trained: its forward call, the layers that get adapters, their names in LoRA files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from calotype.models.objectives import FlowMatching, Objective

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ATTENTION",
    "QKV",
    "QKV_ADDED",
    "UNET_ATTENTION",
    "Blocks",
    "Kohya",
    "Network",
    "OriginalLayer",
    "layer_in_blocks",
]

Predict = Callable[[Any, "Tensor", "Tensor", "Mapping[str, Tensor]", "float | None"], "Tensor"]
"""(network, x_t (B, C, h, w), timesteps (B,) from the objective, the batch's texts and conditioning, guidance)
→ the prediction (B, C, h, w)."""

ATTENTION: Final = tuple(
    f"attn.{layer}"
    for layer in ("to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_q_proj", "add_v_proj", "to_add_out")
)
"""Attention layers of a two-stream transformer, by the endings of their names."""

UNET_ATTENTION: Final = ("to_k", "to_q", "to_v", "to_out.0")
"""Attention layers of a U-Net."""


class OriginalLayer(NamedTuple):
    """A layer of the model's original code."""

    path: str
    """Its path there: `double_blocks.0.img_attn.qkv`."""
    layers: tuple[str, ...]
    """The diffusers layers that it joins, in the order of its output rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kohya:
    """A family's names in LoRA files of kohya's sd-scripts."""

    original_layer: Callable[[str, Any], OriginalLayer | None]
    """(diffusers' name of a layer, the network's config) → its layer in the original code; None where it has none."""

    base_model: str
    """`ss_base_model_version`; A1111 and Forge sort LoRAs by it."""

    module: str = "networks.lora"
    """`ss_network_module`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What differs between the networks of families."""

    predict: Predict
    """The forward call."""

    lora_targets: tuple[str, ...]
    """Endings of the names of the layers that diffusers' DreamBooth LoRA script for the family adapts."""

    lora_format: str = "diffusers"
    """The LoRA file layout that most programs read for the family; docs/train.md lists them."""

    kohya: Kohya | None = None
    """Its names in kohya's layout; None without one."""

    component: str = "transformer"
    """Name of the pipeline's component."""

    objective: type[Objective] = FlowMatching
    """What it is trained to predict."""

    patch: int = 2
    """Side of one token in latent pixels."""

    conditioning: tuple[str, ...] = ()
    """Further keys of the batch that it takes."""

    negative: bool = False
    """Whether the pipeline needs the empty prompt for guidance; it is then encoded for samples."""


QKV: Final = ("attn.to_q", "attn.to_k", "attn.to_v")
QKV_ADDED: Final = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
"""Layers that the original code of FLUX.1 and SD3 joins as `qkv`."""

Blocks = Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]]
"""diffusers' name of a list of blocks → (its original name, original layer → the diffusers layers that it joins)."""


def layer_in_blocks(layer: str, blocks: Blocks) -> OriginalLayer | None:
    """Return the original layer of a layer in a numbered block; None where it has none."""
    kind, _, rest = layer.partition(".")
    number, _, name = rest.partition(".")
    original, table = blocks.get(kind, ("", {}))
    for path, layers in table.items():
        if name in layers:
            return OriginalLayer(f"{original}.{number}.{path}", tuple(f"{kind}.{number}.{one}" for one in layers))
    return None
