"""Stable Diffusion 1.5: CLIP-L's 77 positions, and four latent channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from calotype.encodings.family import Family, TextTensor, TokenCount, count_tokens, split

__all__ = ["SD15"]


class SD15(Family):
    """Text: `prompt_embeds` (77, 768). Picture: 4 channels at 1/8.

    Latents: `z * scaling_factor` (examples/text_to_image/train_text_to_image.py).
    """

    pipelines: ClassVar = ("StableDiffusionPipeline",)
    load_options: ClassVar = {"requires_safety_checker": False}
    texts: ClassVar = (TextTensor(key="prompt_embeds"),)

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, _ = pipe.encode_prompt(
            list(texts), device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return split({"prompt_embeds": prompt_embeds})

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        return [count_tokens(pipe, "tokenizer", texts)]
