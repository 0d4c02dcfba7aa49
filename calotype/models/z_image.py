"""Z-Image: hidden states of Qwen3, real tokens only, as a list of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from calotype.models.family import ModelFamily, TokenCount, count_tokens
from calotype.models.spec import EncodingSpec, ModelSpec, TextOutput

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["FAMILY", "ZImage"]

_QWEN_3_4B: Final = 3_633_511_936
"""Number of parameters, without embeddings."""


def _z_image(name: str, hub: str) -> ModelSpec:
    return ModelSpec(
        name=name,
        hub=(hub,),
        frozen_bytes=8_210_000_000,
        family="z-image",
        resolution=1024,
        multiple=16,
        encodings=EncodingSpec(
            latent_channels=16,
            texts=(TextOutput(key="prompt_embeds", tokens=512, width=2560, mask="prompt_embeds_mask"),),
            text_flops=2.0 * _QWEN_3_4B * 512,
            sequence_length=512,
            longest_sequence=512,
        ),
    )


class ZImage(ModelFamily):
    """Text: `prompt_embeds` (n, 2560) with `prompt_embeds_mask`. Image: 16 channels at 1/8.

    The transformer takes a list of sequences of any length; `as_list` converts a batch to it. Latents:
    `(z - shift_factor) * scaling_factor` (examples/dreambooth/train_dreambooth_lora_z_image.py, which takes the
    posterior's mean: `latents="mean"`).
    """

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        # Pass a copy: the pipeline replaces the texts in the list by chat-templated ones.
        prompt_embeds, _ = pipe.encode_prompt(
            list(texts), device=device, do_classifier_free_guidance=False, max_sequence_length=max_sequence_length
        )
        return [{"prompt_embeds": embeds} for embeds in prompt_embeds]

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        prompts = [
            pipe.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=True
            )
            for text in texts
        ]
        return [count_tokens(pipe, "tokenizer", prompts, limit=max_sequence_length)]

    @staticmethod
    def as_list(prompt_embeds: Tensor, prompt_embeds_mask: Tensor) -> list[Tensor]:
        """Convert a batch of texts to the list that the transformer takes.

        Args:
            prompt_embeds: (B, T, 2560), padded.
            prompt_embeds_mask: (B, T), nonzero for real tokens.

        Returns:
            A tensor (n, 2560) for each text, without padding.
        """
        return [embeds[real] for embeds, real in zip(prompt_embeds, prompt_embeds_mask.bool(), strict=True)]


FAMILY: Final = ZImage(
    name="z-image",
    models=(_z_image("z-image", "Tongyi-MAI/Z-Image"), _z_image("z-image-turbo", "Tongyi-MAI/Z-Image-Turbo")),
    pipelines=("ZImagePipeline", "ZImageImg2ImgPipeline"),
)
