"""The models: their facts, their tokenizers, and one transform a family."""

from __future__ import annotations

from calotype.models.flux import FluxTransform
from calotype.models.tokenizer import Tokenizer, load_tokenizer
from calotype.models.transform import PixelsTransform

__all__ = ["FluxTransform", "PixelsTransform", "Tokenizer", "load_tokenizer"]
