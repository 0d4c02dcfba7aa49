"""Chroma: T5's real tokens and the one padding token after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from calotype.models.family import ModelFamily, TokenCount, count_tokens, trim
from calotype.models.spec import T5_XXL_PARAMETERS, EncodingSpec, ModelSpec, TextOutput

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["FAMILY", "Chroma"]

_CHROMA: Final = ModelSpec(
    name="chroma",
    hub=("lodestones/Chroma1-HD",),
    frozen_bytes=9_690_000_000,
    family="chroma",
    resolution=1024,
    multiple=16,
    encodings=EncodingSpec(
        latent_channels=16,
        texts=(TextOutput(key="prompt_embeds", tokens=512, width=4096, mask="prompt_attention_mask", bool_mask=True),),
        text_flops=2.0 * T5_XXL_PARAMETERS * 512,
        sequence_length=512,
        longest_sequence=512,
    ),
)


class Chroma(ModelFamily):
    """Text: `prompt_embeds` (n + 1, 4096) with `prompt_attention_mask`. Image: 16 channels at 1/8.

    The mask is bool. diffusers 0.42 passes a float mask, which is added to the attention scores and masks nothing
    (https://github.com/huggingface/diffusers/issues/12116); the model was trained with all padding masked except its
    first token. The transformer takes the text's mask, followed by ones for the image's tokens.
    """

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, _, mask, _, _, _ = pipe.encode_prompt(
            list(texts), device=device, do_classifier_free_guidance=False, max_sequence_length=max_sequence_length
        )
        return trim("prompt_embeds", prompt_embeds, mask)

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        return [count_tokens(pipe, "tokenizer", texts, limit=max_sequence_length)]


FAMILY: Final = Chroma(name="chroma", models=(_CHROMA,), pipelines=("ChromaPipeline", "ChromaImg2ImgPipeline"))
