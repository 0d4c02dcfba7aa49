"""PixArt-Σ: T5's real tokens, and SDXL's autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from calotype.encodings.family import Family, TextTensor, TokenCount, count_tokens, trim

__all__ = ["PixArtSigma"]


class PixArtSigma(Family):
    """Text: `prompt_embeds` (n, 4096) with `prompt_attention_mask`. Picture: 4 channels at 1/8.

    The pipeline reads texts in lower case and without white space around them. Latents: `z * scaling_factor`.
    """

    pipelines: ClassVar = ("PixArtSigmaPipeline",)
    texts: ClassVar = (TextTensor(key="prompt_embeds", mask="prompt_attention_mask"),)

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, mask, _, _ = pipe.encode_prompt(
            list(texts), do_classifier_free_guidance=False, device=device, max_sequence_length=max_sequence_length
        )
        return trim("prompt_embeds", prompt_embeds, mask)

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        prompts = pipe._text_preprocessing(list(texts))
        return [count_tokens(pipe, "tokenizer", prompts, limit=max_sequence_length)]
