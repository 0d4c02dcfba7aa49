"""Flow matching: sampled times, noisy latents, the velocity to predict, and the loss.

A straight path leads from an image's latents x₀ (t = 0) to noise (t = 1), and the transformer learns its velocity
(Lipman et al., "Flow Matching for Generative Modeling", 2022; Esser et al., "Scaling Rectified Flow Transformers",
2024). All randomness follows from the arguments, so a resumed run samples what the uninterrupted one would have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["interpolate", "loss", "sample_noise", "sample_times", "shift", "velocity"]


def interpolate(latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Return x_t = (1 − t) · x₀ + t · noise (B, C, h, w).

    Args:
        latents: x₀ (B, C, h, w), scaled as the transformer takes them.
        noise: (B, C, h, w), standard normal.
        times: t (B,), 0 to 1.
    """
    t = times.view(-1, *(1,) * (latents.ndim - 1))  # (B,) → (B, 1, 1, 1)
    return (1.0 - t) * latents + t * noise


def velocity(latents: Tensor, noise: Tensor) -> Tensor:
    """Return the target at any point of the path (B, C, h, w): dx_t/dt = noise − x₀."""
    return noise - latents


def loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each image (B,), float32."""
    return (predicted.float() - target.float()).square().flatten(1).mean(dim=1)  # (B, C, h, w) → (B,)


def shift(scheduler: Mapping[str, Any], sequence_length: int) -> float:
    """Return μ, by which the logits of times are shifted towards noise; it grows with the image.

    FLUX.1-dev's μ is linear in the number of the image's tokens, 0.5 at 256 and 1.15 at 4096 (diffusers'
    `calculate_shift`; `get_lin_function` of black-forest-labs/flux); FLUX.1-schnell does not shift; SD3 shifts by a
    constant s, which is μ = ln s (Esser et al., equation 23). The pipeline's scheduler config has all of these values.

    Args:
        scheduler: Config of a `FlowMatchEulerDiscreteScheduler`.
        sequence_length: Number of tokens of the image.
    """
    if not scheduler["use_dynamic_shifting"]:
        return math.log(scheduler["shift"])
    low, high = scheduler["base_image_seq_len"], scheduler["max_image_seq_len"]
    slope = (scheduler["max_shift"] - scheduler["base_shift"]) / (high - low)
    return float(scheduler["base_shift"] + slope * (sequence_length - low))


def sample_times(count: int, mu: float, *, rng: torch.Generator) -> Tensor:
    """Sample logit-normal times (count,), float32, on the CPU: sigmoid(μ + z) with a standard normal z.

    This equals the schedulers' `e^μ / (e^μ + (1/t − 1))` of t = sigmoid(z).
    """
    import torch

    return torch.sigmoid(mu + torch.randn(count, generator=rng))


def sample_noise(
    shape: tuple[int, ...], key: tuple[int, ...], *, device: torch.device
) -> tuple[Tensor, torch.Generator]:
    """Sample the noise (B, C, h, w) of one batch; return it with the generator, which samples its times next.

    Args:
        shape: Shape of the latents (B, C, h, w).
        key: The seed: (seed, number of the batch, rank, …).
        device: Device of the returned noise. It is sampled on the CPU, so that it is the same on all devices.
    """
    import numpy as np
    import torch

    seed = int(np.random.SeedSequence([number % 2**64 for number in key]).generate_state(1, np.uint64)[0] >> 1)
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng).to(device, non_blocking=True), rng
