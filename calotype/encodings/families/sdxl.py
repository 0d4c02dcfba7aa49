"""Stable Diffusion XL: both CLIPs side by side, CLIP-G's pooled vector, and the sizes its U-Net is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from calotype.encodings.family import Family, TextTensor, TokenCount, count_tokens, split
from calotype.models.sdxl import size_conditioning
from calotype.types import Geometry

__all__ = ["SDXL"]


class SDXL(Family):
    """Text: `prompt_embeds` (77, 2048), `pooled_prompt_embeds` (1280,). Picture: 4 channels at 1/8.

    The pipeline's autoencoder overflows in float16, so where its config says `force_upcast` it encodes in float32, as
    `StableDiffusionXLImg2ImgPipeline.prepare_latents` does; only what comes out is rounded.

    Latents: `z * scaling_factor`, or `(z - latents_mean) * scaling_factor / latents_std` where the config has them
    (examples/dreambooth/train_dreambooth_lora_sdxl.py).
    """

    pipelines: ClassVar = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")
    load_options: ClassVar = {"add_watermarker": False}
    texts: ClassVar = (TextTensor(key="prompt_embeds"), TextTensor(key="pooled_prompt_embeds"))
    upcast: ClassVar = True

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, _, pooled, _ = pipe.encode_prompt(list(texts), device=device, do_classifier_free_guidance=False)
        return split({"prompt_embeds": prompt_embeds, "pooled_prompt_embeds": pooled})

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        return [count_tokens(pipe, name, texts) for name in ("tokenizer", "tokenizer_2")]

    def scaling(self, vae: Any) -> dict[str, Tensor]:
        found = super().scaling(vae)
        found.pop("shift_factor", None)
        if vae.config.latents_mean is not None and vae.config.latents_std is not None:
            for name in ("latents_mean", "latents_std"):
                found[name] = torch.tensor(getattr(vae.config, name), dtype=torch.float32)
        return found

    def latents(self, raw: Tensor, scaling: Mapping[str, Tensor]) -> Tensor:
        if "latents_mean" not in scaling:
            return super().latents(raw, scaling)
        mean, std = (scaling[name].to(raw.device).view(1, -1, 1, 1) for name in ("latents_mean", "latents_std"))
        return (raw.float() - mean) * scaling["scaling_factor"].to(raw.device) / std

    def conditioning(self, geometry: Geometry) -> dict[str, Tensor]:
        """`original_size`, `crop_top_left`, `target_size`, int64 (2,): side by side, the pipeline's `add_time_ids`."""
        return size_conditioning(geometry, geometry.target_size)
