"""Select the files of a component that diffusers loads: configuration, tokenizer, one variant of the weights."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["WEIGHTS", "files_that_count"]

WEIGHTS: Final = (".safetensors", ".bin")
"""Extensions of weights, in diffusers' order of preference."""

_VARIANT: Final = re.compile(r"[^.]+\.(?P<variant>[^.]+?)(-\d+-of-\d+)?\.(safetensors|bin)")
"""`diffusion_pytorch_model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors`."""


def files_that_count(names: Iterable[str], *, variant: str | None = None) -> list[str]:
    """Return the files that determine a component's output, sorted.

    Of a model these are its configuration and the weights that diffusers loads; of a tokenizer or processor, all files
    except hidden ones and Markdown.

    Args:
        names: Paths of the files, relative to the component's folder.
        variant: Variant of the weights, where the component has it.
    """
    names = sorted(names)
    weights = [name for name in names if name.endswith(WEIGHTS)]
    if not weights:
        hidden = [name for name in names if any(part.startswith(".") for part in name.split("/"))]
        return [name for name in names if name not in hidden and not name.endswith(".md")]
    # diffusers falls back to the weights without a variant, and prefers safetensors.
    chosen = _of_variant(weights, variant) or _of_variant(weights, None)
    chosen = [name for name in chosen if name.endswith(WEIGHTS[0])] or chosen
    return sorted([name for name in names if name == "config.json"] + chosen)


def _of_variant(weights: Iterable[str], variant: str | None) -> list[str]:
    """Return the weight files of one variant; None selects those without a variant."""
    matches = {name: _VARIANT.fullmatch(name) for name in weights}
    return [name for name, match in matches.items() if (match["variant"] if match else None) == variant]
