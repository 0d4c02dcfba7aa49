"""Qwen-Image: the hidden states of Qwen2.5-VL, real tokens alone, and a video autoencoder's latents of one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from calotype.encodings.family import Family, TextTensor, TokenCount, count_tokens, trim

__all__ = ["QwenImage"]


class QwenImage(Family):
    """Text: `prompt_embeds` (n, 3584) with `prompt_embeds_mask`. Picture: 16 channels at 1/8.

    The transformer masks the padding (the pipeline gives no mask when no text of a batch has any). Latents are
    (B, C, 1, h, w), `(z - latents_mean) * (1 / latents_std)` for each channel
    (examples/dreambooth/train_dreambooth_lora_qwen_image.py).
    """

    pipelines: ClassVar = ("QwenImagePipeline", "QwenImageImg2ImgPipeline")
    texts: ClassVar = (TextTensor(key="prompt_embeds", mask="prompt_embeds_mask"),)

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, mask = pipe.encode_prompt(list(texts), device=device, max_sequence_length=max_sequence_length)
        return trim("prompt_embeds", prompt_embeds, mask)

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        template, dropped = pipe.prompt_template_encode, pipe.prompt_template_encode_start_idx
        prompts = [template.format(text) for text in texts]
        return [count_tokens(pipe, "tokenizer", prompts, limit=max_sequence_length, framing=dropped)]

    def encode(self, vae: Any, img: Tensor, *, latents: Literal["moments", "mean"]) -> dict[str, Tensor]:
        records = super().encode(vae, img.unsqueeze(2), latents=latents)  # (B, 3, 1, H, W): a video of one frame
        return {key: value.squeeze(2) for key, value in records.items()}

    def scaling(self, vae: Any) -> dict[str, Tensor]:
        return {
            name: torch.tensor(getattr(vae.config, name), dtype=torch.float32)
            for name in ("latents_mean", "latents_std")
        }

    def latents(self, raw: Tensor, scaling: Mapping[str, Tensor]) -> Tensor:
        mean, std = (scaling[name].to(raw.device).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
        return (raw.float().unsqueeze(2) - mean) * (1.0 / std)
