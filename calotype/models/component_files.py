"""Which of a component's files diffusers loads: its configuration, its tokenizer, one variant of its weights."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["files_that_count"]

_WEIGHTS: Final = (".safetensors", ".bin")
"""In the order in which diffusers prefers them."""

_VARIANT: Final = re.compile(r"[^.]+\.(?P<variant>[^.]+?)(-\d+-of-\d+)?\.(safetensors|bin)")
"""`diffusion_pytorch_model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors`."""


def files_that_count(names: Iterable[str], *, variant: str | None = None) -> list[str]:
    """Which of a component's files decide what it computes, sorted: of a model its configuration and the weights that
    diffusers loads, of a tokenizer or processor all but hidden files and pages of text.

    Args:
        names: Relative to the component's folder.
        variant: Of the weights, where the component has it.
    """
    names = sorted(names)
    weights = [name for name in names if name.endswith(_WEIGHTS)]
    if not weights:
        hidden = [name for name in names if any(part.startswith(".") for part in name.split("/"))]
        return [name for name in names if name not in hidden and not name.endswith(".md")]
    # A component that lacks the variant is loaded from its usual weights, and from safetensors where it can be.
    chosen = _of_variant(weights, variant) or _of_variant(weights, None)
    chosen = [name for name in chosen if name.endswith(_WEIGHTS[0])] or chosen
    return sorted([name for name in names if name == "config.json"] + chosen)


def _of_variant(weights: Iterable[str], variant: str | None) -> list[str]:
    """The weight files of one variant; None is that without a name."""
    matches = {name: _VARIANT.fullmatch(name) for name in weights}
    return [name for name, match in matches.items() if (match["variant"] if match else None) == variant]
