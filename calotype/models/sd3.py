"""Stable Diffusion 3 and 3.5's transform: CLIP-L, CLIP-G and T5-XXL."""

from __future__ import annotations

from pathlib import Path

from calotype.models.spec import get_spec
from calotype.models.transform import TokenTransform

__all__ = ["SD3Transform"]


class SD3Transform(TokenTransform):
    """Pixels and tokens for SD3 and SD3.5, as diffusers' `StableDiffusion3Pipeline` tokenises.

    Output: `img`; `clip_l_text_tokens` and `clip_g_text_tokens` int64 (77,); `t5_text_tokens` int64
    (t5_max_seq_len,).

    Args:
        tokenizer_path: CLIP-L's tokenizer, any form that `load_tokenizer` takes.
        tokenizer_2_path: CLIP-G's, which pads with `!` (id 0).
        tokenizer_3_path: T5's.
        t5_max_seq_len: 256 as the pipeline does unless told otherwise; 512 at most.

    Raises:
        MissingTokenizerError: A path leads nowhere; says how to get the tokenizer.
        ConfigError: Something else than this tokenizer is there, or `t5_max_seq_len` is more than the model takes.
    """

    def __init__(
        self,
        tokenizer_path: str | Path,
        tokenizer_2_path: str | Path,
        tokenizer_3_path: str | Path,
        t5_max_seq_len: int = 256,
    ) -> None:
        super().__init__(
            get_spec("sd3.5-large"),
            {
                "tokenizer_path": tokenizer_path,
                "tokenizer_2_path": tokenizer_2_path,
                "tokenizer_3_path": tokenizer_3_path,
            },
            t5_max_seq_len=t5_max_seq_len,
        )
