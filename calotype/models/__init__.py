"""The models: a module for each family, with all of its facts, and the registry of families.

Names are imported when they are first used. Importing a family does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from calotype.models.spec import (
    EncodingSpec,
    ModelSpec,
    TextOutput,
    TokenizerSpec,
    check_image_size,
    check_max_seq_len,
)

if TYPE_CHECKING:
    from calotype.models.build import build_model_transform, check_model_transform
    from calotype.models.family import ModelFamily
    from calotype.models.flux import FluxTransform
    from calotype.models.network import Network
    from calotype.models.pieces import TokenPiece
    from calotype.models.registry import get_family, get_spec, list_families, list_specs, register
    from calotype.models.sd3 import SD3Transform
    from calotype.models.sd15 import SD15Transform
    from calotype.models.sdxl import SDXLTransform
    from calotype.models.tokenizer import Tokenizer, load_tokenizer
    from calotype.models.transform import PixelsTransform, TokenTransform, Truncation

__all__ = [
    "EncodingSpec",
    "FluxTransform",
    "ModelFamily",
    "ModelSpec",
    "Network",
    "PixelsTransform",
    "SD3Transform",
    "SD15Transform",
    "SDXLTransform",
    "TextOutput",
    "TokenPiece",
    "TokenTransform",
    "Tokenizer",
    "TokenizerSpec",
    "Truncation",
    "build_model_transform",
    "check_image_size",
    "check_max_seq_len",
    "check_model_transform",
    "get_family",
    "get_spec",
    "list_families",
    "list_specs",
    "load_tokenizer",
    "register",
]

_HOMES = {
    "FluxTransform": "flux",
    "ModelFamily": "family",
    "Network": "network",
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
    "get_family": "registry",
    "get_spec": "registry",
    "list_families": "registry",
    "list_specs": "registry",
    "load_tokenizer": "tokenizer",
    "register": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
