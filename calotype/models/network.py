"""How a family's network is called in training, which of its layers get adapters, and what their files call them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from calotype.models.objectives import FlowMatching, Objective

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ATTENTION", "QKV", "QKV_ADDED", "UNET_ATTENTION", "Blocks", "Kohya", "Network", "Place", "place_in_blocks"]

Predict = Callable[[Any, "Tensor", "Tensor", "Mapping[str, Tensor]", "float | None"], "Tensor"]
"""(network, x_t (B, C, h, w), timesteps (B,) as the objective gives them, the batch's texts and conditioning, guidance)
→ the prediction (B, C, h, w)."""

ATTENTION: Final = tuple(
    f"attn.{layer}"
    for layer in ("to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_q_proj", "add_v_proj", "to_add_out")
)
"""The layers of a two-stream transformer's attention, by the endings of their names."""

UNET_ATTENTION: Final = ("to_k", "to_q", "to_v", "to_out.0")
"""Likewise of a U-Net's."""


class Place(NamedTuple):
    """Where a layer is in the model's original code."""

    path: str
    layers: tuple[str, ...]
    """All of diffusers' layers that are one there, in the order of its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kohya:
    """A family in the files of kohya's sd-scripts."""

    place: Callable[[str, Any], Place | None]
    """(diffusers' name of a layer, the network's config) → its place in the original code; None where it has none."""

    base_model: str
    """`ss_base_model_version`; A1111 and Forge sort LoRAs by it."""

    module: str = "networks.lora"
    """`ss_network_module`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What is different from one family's network to the next."""

    predict: Predict
    """Calls the network."""

    lora_targets: tuple[str, ...]
    """Endings of the names of the layers that diffusers' DreamBooth LoRA script for the family adapts."""

    lora_format: str = "diffusers"
    """The layout of a LoRA file that most programs read for the family; docs/train.md lists them."""

    kohya: Kohya | None = None
    """Its names in kohya's layout, where it has some."""

    component: str = "transformer"
    """What the pipeline calls it."""

    objective: type[Objective] = FlowMatching
    """What it learns."""

    patch: int = 2
    """Latents to the side of one token."""

    conditioning: tuple[str, ...] = ()
    """What else of a batch it takes."""

    negative: bool = False
    """Whether its pipeline guides by the difference from the empty prompt: then that is encoded for samples too."""


QKV: Final = ("attn.to_q", "attn.to_k", "attn.to_v")
QKV_ADDED: Final = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
"""Layers that are one, `qkv`, in the original code of FLUX.1 and SD3."""

Blocks = Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]]
"""diffusers' name of a list of blocks → (its original name, original layer → diffusers' layers that are one there)."""


def place_in_blocks(layer: str, blocks: Blocks) -> Place | None:
    """The place of a layer of a numbered block."""
    kind, _, rest = layer.partition(".")
    number, _, name = rest.partition(".")
    original, table = blocks.get(kind, ("", {}))
    for path, layers in table.items():
        if name in layers:
            return Place(f"{original}.{number}.{path}", tuple(f"{kind}.{number}.{one}" for one in layers))
    return None
