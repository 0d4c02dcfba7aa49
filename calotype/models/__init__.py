"""The models: a table of their facts, their tokenizers, and one transform a family.

Names are imported when they are first used: the table needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from calotype.models.spec import (
    ModelSpec,
    TokenizerSpec,
    check_image_size,
    check_max_seq_len,
    get_spec,
    list_specs,
)

if TYPE_CHECKING:
    from calotype.models.build import build_model_transform, check_model_transform
    from calotype.models.flux import FluxTransform
    from calotype.models.pieces import TokenPiece
    from calotype.models.sd3 import SD3Transform
    from calotype.models.sd15 import SD15Transform
    from calotype.models.sdxl import SDXLTransform
    from calotype.models.tokenizer import Tokenizer, load_tokenizer
    from calotype.models.transform import PixelsTransform, TokenTransform, Truncation

__all__ = [
    "FluxTransform",
    "ModelSpec",
    "PixelsTransform",
    "SD3Transform",
    "SD15Transform",
    "SDXLTransform",
    "TokenPiece",
    "TokenTransform",
    "Tokenizer",
    "TokenizerSpec",
    "Truncation",
    "build_model_transform",
    "check_image_size",
    "check_max_seq_len",
    "check_model_transform",
    "get_spec",
    "list_specs",
    "load_tokenizer",
]

_HOMES = {
    "FluxTransform": "flux",
    "PixelsTransform": "transform",
    "SD15Transform": "sd15",
    "SD3Transform": "sd3",
    "SDXLTransform": "sdxl",
    "TokenPiece": "pieces",
    "TokenTransform": "transform",
    "Tokenizer": "tokenizer",
    "Truncation": "transform",
    "build_model_transform": "build",
    "check_model_transform": "build",
    "load_tokenizer": "tokenizer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
