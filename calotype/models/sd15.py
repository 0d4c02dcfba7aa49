"""Stable Diffusion 1.5's transform: CLIP-L."""

from __future__ import annotations

from pathlib import Path

from calotype.models.spec import get_spec
from calotype.models.transform import TokenTransform

__all__ = ["SD15Transform"]


class SD15Transform(TokenTransform):
    """Pixels and tokens for Stable Diffusion 1.x, as diffusers' `StableDiffusionPipeline` tokenises.

    Output: `img`; `clip_text_tokens` int64 (77,).

    Args:
        tokenizer_path: CLIP-L's tokenizer, any form that `load_tokenizer` takes.

    Raises:
        MissingTokenizerError: The path leads nowhere; says how to get the tokenizer.
        ConfigError: Something else than this tokenizer is there.
    """

    def __init__(self, tokenizer_path: str | Path) -> None:
        super().__init__(get_spec("sd-1.5"), {"tokenizer_path": tokenizer_path})
