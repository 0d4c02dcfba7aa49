"""Sana: Gemma's hidden states behind the pipeline's instruction, and an autoencoder without a posterior at 1/32."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from calotype.encodings.family import Family, TextTensor, TokenCount, count_tokens, trim

__all__ = ["Sana"]


class Sana(Family):
    """Text: `prompt_embeds` (n, 2304) with `prompt_attention_mask`. Picture: `latents`, 32 channels at 1/32.

    Every text, the empty one too, stands behind the instruction that the pipeline puts before prompts by default
    (`complex_human_instruction`; its negative prompt stands alone). Latents: `z * scaling_factor`
    (examples/dreambooth/train_dreambooth_lora_sana.py).
    """

    pipelines: ClassVar = ("SanaPipeline",)
    texts: ClassVar = (TextTensor(key="prompt_embeds", mask="prompt_attention_mask"),)

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, mask, _, _ = pipe.encode_prompt(
            list(texts),
            do_classifier_free_guidance=False,
            device=device,
            max_sequence_length=max_sequence_length,
            complex_human_instruction=_instruction(pipe),
        )
        return trim("prompt_embeds", prompt_embeds, mask)

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        instruction = "\n".join(_instruction(pipe))
        prompts = [instruction + text for text in pipe._text_preprocessing(list(texts))]
        # What the pipeline takes the instruction for when it counts: its tokens but the first and the last.
        framing = len(pipe.tokenizer.encode(instruction)) - 2
        return [count_tokens(pipe, "tokenizer", prompts, limit=max_sequence_length, framing=framing)]

    def encode(self, vae: Any, img: Tensor, *, latents: Literal["moments", "mean"]) -> dict[str, Tensor]:
        return {"latents": vae.encode(img).latent}


def _instruction(pipe: Any) -> list[str]:
    instruction: list[str] = inspect.signature(type(pipe).__call__).parameters["complex_human_instruction"].default
    return instruction
