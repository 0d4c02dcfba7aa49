"""Stable Diffusion 3 and 3.5: both CLIPs and T5 in one sequence, and both pooled vectors in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from calotype.encodings.family import Family, TextTensor, TokenCount, count_tokens, split

__all__ = ["SD3"]


class SD3(Family):
    """Text: `prompt_embeds` (77 + T, 4096), `pooled_prompt_embeds` (2048,). Picture: 16 channels at 1/8.

    The transformer attends to all positions. Latents: `(z - shift_factor) * scaling_factor`
    (examples/dreambooth/train_dreambooth_lora_sd3.py).
    """

    pipelines: ClassVar = ("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline")
    texts: ClassVar = (TextTensor(key="prompt_embeds"), TextTensor(key="pooled_prompt_embeds"))

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, _, pooled, _ = pipe.encode_prompt(
            list(texts),
            None,
            None,
            device=device,
            do_classifier_free_guidance=False,
            max_sequence_length=max_sequence_length,
        )
        return split({"prompt_embeds": prompt_embeds, "pooled_prompt_embeds": pooled})

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        return [
            count_tokens(pipe, "tokenizer", texts),
            count_tokens(pipe, "tokenizer_2", texts, limit=pipe.tokenizer_max_length),
            count_tokens(pipe, "tokenizer_3", texts, limit=max_sequence_length),
        ]
