"""FLUX.1's transform: CLIP-L for the pooled embedding, T5-XXL for the sequence."""

from __future__ import annotations

from pathlib import Path

from calotype.models.tokenizer import load_tokenizer
from calotype.models.transform import TokenField, TokenTransform

__all__ = ["FluxTransform"]


class FluxTransform(TokenTransform):
    """Pixels and tokens for FLUX.1, as diffusers' `FluxPipeline` tokenises.

    Output: `img`; `clip_text_tokens` int64 (77,); `t5_text_tokens` int64 (t5_max_seq_len,).

    Args:
        clip_tokenizer_path: CLIP-L's tokenizer (the pipeline's `tokenizer`), any form `load_tokenizer` takes.
        t5_tokenizer_path: T5's (the pipeline's `tokenizer_2`).
        t5_max_seq_len: 512 for FLUX.1-dev; 256 for FLUX.1-schnell.

    Raises:
        MissingTokenizerError: A path leads nowhere; says how to get the tokenizer.
        ConfigError: `t5_max_seq_len` is more than FLUX.1 takes.
    """

    def __init__(
        self, clip_tokenizer_path: str | Path, t5_tokenizer_path: str | Path, t5_max_seq_len: int = 512
    ) -> None:
        super().__init__(
            (
                TokenField(
                    option="clip_tokenizer_path",
                    key="clip_text_tokens",
                    tokenizer=load_tokenizer(clip_tokenizer_path, kind="clip"),
                    max_length=77,
                ),
                TokenField(
                    option="t5_tokenizer_path",
                    key="t5_text_tokens",
                    tokenizer=load_tokenizer(t5_tokenizer_path, kind="t5"),
                    max_length=t5_max_seq_len,
                ),
            )
        )
