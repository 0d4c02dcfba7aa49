"""FLUX.1's transform: CLIP-L for the pooled embedding, T5-XXL for the sequence."""

from __future__ import annotations

from pathlib import Path

from calotype.models.spec import get_spec
from calotype.models.transform import TokenTransform

__all__ = ["FluxTransform"]


class FluxTransform(TokenTransform):
    """Pixels and tokens for FLUX.1, as diffusers' `FluxPipeline` tokenises.

    Output: `img`; `clip_text_tokens` int64 (77,); `t5_text_tokens` int64 (t5_max_seq_len,).

    Args:
        clip_tokenizer_path: CLIP-L's tokenizer (the pipeline's `tokenizer`), any form that `load_tokenizer` takes.
        t5_tokenizer_path: T5's (the pipeline's `tokenizer_2`).
        t5_max_seq_len: 512 for FLUX.1-dev; FLUX.1-schnell takes no more than 256.

    Raises:
        MissingTokenizerError: A path leads nowhere; says how to get the tokenizer.
        ConfigError: Something else than this tokenizer is there, or `t5_max_seq_len` is more than FLUX.1 takes.
    """

    def __init__(
        self, clip_tokenizer_path: str | Path, t5_tokenizer_path: str | Path, t5_max_seq_len: int = 512
    ) -> None:
        super().__init__(
            get_spec("flux.1-dev"),
            {"clip_tokenizer_path": clip_tokenizer_path, "t5_tokenizer_path": t5_tokenizer_path},
            t5_max_seq_len=t5_max_seq_len,
        )
