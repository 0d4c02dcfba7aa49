"""Chroma: T5's real tokens and the one padding token after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from calotype.encodings.family import Family, TextTensor, TokenCount, count_tokens, trim

__all__ = ["Chroma"]


class Chroma(Family):
    """Text: `prompt_embeds` (n + 1, 4096) with `prompt_attention_mask`. Picture: 16 channels at 1/8.

    The mask is bool here: the float one of diffusers 0.42 is added to the attention's scores and masks nothing
    (https://github.com/huggingface/diffusers/issues/12116), while the model was trained with padding masked but for
    its first token. The transformer takes it with the picture's tokens, all true, behind it.
    """

    pipelines: ClassVar = ("ChromaPipeline", "ChromaImg2ImgPipeline")
    texts: ClassVar = (TextTensor(key="prompt_embeds", mask="prompt_attention_mask", mask_dtype=torch.bool),)

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, _, mask, _, _, _ = pipe.encode_prompt(
            list(texts), device=device, do_classifier_free_guidance=False, max_sequence_length=max_sequence_length
        )
        return trim("prompt_embeds", prompt_embeds, mask)

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        return [count_tokens(pipe, "tokenizer", texts, limit=max_sequence_length)]
