"""PixArt-Σ: T5's real tokens, and SDXL's autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from calotype.models.family import ModelFamily, TokenCount, count_tokens, trim
from calotype.models.spec import T5_XXL_PARAMETERS, EncodingSpec, ModelSpec, TextOutput

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["FAMILY", "PixArtSigma"]

_SIGMA: Final = ModelSpec(
    name="pixart-sigma",
    hub=("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",),
    frozen_bytes=19_400_000_000,
    family="pixart-sigma",
    resolution=1024,
    multiple=16,
    encodings=EncodingSpec(
        latent_channels=4,
        texts=(TextOutput(key="prompt_embeds", tokens=300, width=4096, mask="prompt_attention_mask"),),
        text_flops=2.0 * T5_XXL_PARAMETERS * 300,
        sequence_length=300,
        longest_sequence=300,
    ),
)


class PixArtSigma(ModelFamily):
    """Text: `prompt_embeds` (n, 4096) with `prompt_attention_mask`. Image: 4 channels at 1/8.

    The pipeline lower-cases texts and strips white space around them. Latents: `z * scaling_factor`.
    """

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


FAMILY: Final = PixArtSigma(name="pixart-sigma", models=(_SIGMA,), pipelines=("PixArtSigmaPipeline",))
