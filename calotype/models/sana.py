"""Sana: hidden states of Gemma, with the pipeline's instruction before each text, and an autoencoder at 1/32."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from calotype.models.family import ModelFamily, TokenCount, count_tokens, trim
from calotype.models.spec import EncodingSpec, ModelSpec, TextOutput

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["FAMILY", "Sana"]

_GEMMA_2_2B: Final = 2_024_517_888
"""Number of parameters, without embeddings."""

_SANA: Final = ModelSpec(
    name="sana",
    hub=("Efficient-Large-Model/Sana_1600M_1024px_diffusers",),
    frozen_bytes=6_480_000_000,
    family="sana",
    resolution=1024,
    multiple=32,
    encodings=EncodingSpec(
        latent_channels=32,
        latent_factor=32,
        texts=(TextOutput(key="prompt_embeds", tokens=300, width=2304, mask="prompt_attention_mask"),),
        # The pipeline prepends its instruction, about 200 tokens, to each text; of the output it returns the first
        # position and the last 299.
        text_flops=2.0 * _GEMMA_2_2B * (200 + 300),
        sequence_length=300,
        longest_sequence=300,
        posterior=False,
        autoencoder_flops=4.9e6,
    ),
)


class Sana(ModelFamily):
    """Text: `prompt_embeds` (n, 2304) with `prompt_attention_mask`. Image: `latents`, 32 channels at 1/32.

    The autoencoder has no posterior. Every text, the empty one included, follows the instruction that the pipeline
    prepends to prompts by default (`complex_human_instruction`; its negative prompt has none). Latents:
    `z * scaling_factor` (examples/dreambooth/train_dreambooth_lora_sana.py).
    """

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
        # The pipeline counts the instruction's tokens minus 2 and adds max_sequence_length.
        framing = len(pipe.tokenizer.encode(instruction)) - 2
        return [count_tokens(pipe, "tokenizer", prompts, limit=max_sequence_length, framing=framing)]

    def encode(self, vae: Any, img: Tensor, *, latents: Literal["moments", "mean"]) -> dict[str, Tensor]:
        return {"latents": vae.encode(img).latent}


def _instruction(pipe: Any) -> list[str]:
    """Return the default of the pipeline's `complex_human_instruction`."""
    instruction: list[str] = inspect.signature(type(pipe).__call__).parameters["complex_human_instruction"].default
    return instruction


FAMILY: Final = Sana(name="sana", models=(_SANA,), pipelines=("SanaPipeline",))
