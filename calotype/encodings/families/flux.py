"""FLUX.1: T5's whole sequence, since its transformer attends to the padding too, and CLIP-L's pooled vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from calotype.encodings.family import Family, TextTensor, TokenCount, count_tokens, split

__all__ = ["Flux"]


class Flux(Family):
    """Text: `prompt_embeds` (T, 4096), `pooled_prompt_embeds` (768,). Picture: 16 channels at 1/8.

    `text_ids` are zeros of shape (T, 3), and are not kept. Latents: `(z - shift_factor) * scaling_factor`
    (examples/dreambooth/train_dreambooth_lora_flux.py).
    """

    pipelines: ClassVar = ("FluxPipeline", "FluxImg2ImgPipeline", "FluxFillPipeline", "FluxKontextPipeline")
    texts: ClassVar = (TextTensor(key="prompt_embeds"), TextTensor(key="pooled_prompt_embeds"))

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, pooled, _ = pipe.encode_prompt(
            list(texts), None, device=device, max_sequence_length=max_sequence_length
        )
        return split({"prompt_embeds": prompt_embeds, "pooled_prompt_embeds": pooled})

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        return [
            count_tokens(pipe, "tokenizer", texts),
            count_tokens(pipe, "tokenizer_2", texts, limit=max_sequence_length),
        ]
