"""The loss that the other examples train with: flow matching as FLUX.1 does it, without anything about data."""

from __future__ import annotations

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

__all__ = ["flux_loss"]


def flux_loss(
    transformer: FluxTransformer2DModel,
    latents: torch.Tensor,
    prompt_embeds: torch.Tensor,
    pooled_prompt_embeds: torch.Tensor,
    *,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """The mean squared error of the predicted velocity `noise - latents`, at one drawn time for each sample.

    Args:
        transformer: FLUX.1's, bare or as accelerate wraps it.
        latents: float (B, 16, h, w), shifted and scaled; h and w are even.
        prompt_embeds: T5's, (B, tokens, …).
        pooled_prompt_embeds: CLIP's, (B, …).
        generator: Of the noise and the times; torch's global one by default.
    """
    size, _, height, width = latents.shape
    kind = {"device": latents.device, "dtype": latents.dtype}
    noise = torch.randn(latents.shape, generator=generator, **kind)
    time = torch.sigmoid(torch.randn(size, generator=generator, **kind))  # logit-normal (arXiv 2403.03206)
    mix = time.view(-1, 1, 1, 1)
    guided = getattr(transformer, "module", transformer).config.guidance_embeds
    predicted = transformer(
        hidden_states=_packed((1 - mix) * latents + mix * noise),
        timestep=time,
        guidance=torch.ones(size, **kind) if guided else None,
        encoder_hidden_states=prompt_embeds,
        pooled_projections=pooled_prompt_embeds,
        txt_ids=torch.zeros(prompt_embeds.shape[1], 3, **kind),
        img_ids=FluxPipeline._prepare_latent_image_ids(size, height // 2, width // 2, **kind),
        return_dict=False,
    )[0]
    return torch.nn.functional.mse_loss(predicted.float(), _packed(noise - latents).float())


def _packed(latents: torch.Tensor) -> torch.Tensor:
    """(B, 16, h, w) → (B, h/2 · w/2, 64): the transformer takes squares of 2 × 2."""
    return FluxPipeline._pack_latents(latents, *latents.shape)
