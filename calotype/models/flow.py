"""Flow matching: which times are trained, what the transformer sees at each, and what it is to answer.

A straight path leads from an image's latents x₀ (t = 0) to noise (t = 1), and the transformer learns its velocity
(Lipman et al., "Flow Matching for Generative Modeling", 2022; Esser et al., "Scaling Rectified Flow Transformers",
2024). Everything drawn here follows from numbers that are given, so that a resumed run draws what it would have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["draw_noise", "draw_times", "interpolate", "loss", "shift", "velocity"]


def interpolate(latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """x_t = (1 − t) · x₀ + t · noise.

    Args:
        latents: x₀ (B, C, h, w), scaled as the transformer takes them.
        noise: (B, C, h, w), standard normal.
        times: t (B,), 0 up to 1.
    """
    t = times.view(-1, *(1,) * (latents.ndim - 1))
    return (1.0 - t) * latents + t * noise


def velocity(latents: Tensor, noise: Tensor) -> Tensor:
    """What the transformer is to answer at any point of the path: dx_t/dt = noise − x₀."""
    return noise - latents


def loss(predicted: Tensor, target: Tensor) -> Tensor:
    """The squared error of each image (B,), in float32."""
    return (predicted.float() - target.float()).square().flatten(1).mean(dim=1)


def shift(scheduler: Mapping[str, Any], sequence_length: int) -> float:
    """By how much the logits of times are moved: towards noise, the more the larger the image.

    FLUX.1-dev's μ is linear in the number of the image's tokens, 0.5 at 256 and 1.15 at 4096 (diffusers'
    `calculate_shift`; `get_lin_function` of black-forest-labs/flux); FLUX.1-schnell does not shift; SD3 shifts by a
    constant s, which is μ = ln s (Esser et al., equation 23). All of it stands in the pipeline's scheduler.

    Args:
        scheduler: Its config: of a `FlowMatchEulerDiscreteScheduler`.
        sequence_length: Tokens of the image.
    """
    if not scheduler["use_dynamic_shifting"]:
        return math.log(scheduler["shift"])
    low, high = scheduler["base_image_seq_len"], scheduler["max_image_seq_len"]
    slope = (scheduler["max_shift"] - scheduler["base_shift"]) / (high - low)
    return float(scheduler["base_shift"] + slope * (sequence_length - low))


def draw_times(count: int, mu: float, *, rng: torch.Generator) -> Tensor:
    """Logit-normal times (count,), float32, on the CPU: sigmoid(μ + z) with a standard normal z.

    Moving the logit by μ is the schedulers' `e^μ / (e^μ + (1/t − 1))` of t = sigmoid(z), in one.
    """
    import torch

    return torch.sigmoid(mu + torch.randn(count, generator=rng))


def draw_noise(shape: tuple[int, ...], key: tuple[int, ...], *, device: torch.device) -> tuple[Tensor, torch.Generator]:
    """The noise (B, C, h, w) of one batch, and the generator that draws what else there is to draw for it.

    Args:
        shape: Of the latents.
        key: What they follow from and nothing else: (seed, number of the batch, rank, …).
        device: Where the noise is wanted. It is drawn on the CPU, so that every device gets the same.
    """
    import numpy as np
    import torch

    seed = int(np.random.SeedSequence([number % 2**64 for number in key]).generate_state(1, np.uint64)[0] >> 1)
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng).to(device, non_blocking=True), rng
