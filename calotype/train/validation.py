"""The validation loss: held-out images at fixed times with fixed noise, so that losses can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from accelerate import Accelerator
from torch import Tensor

from calotype.loader import Loader
from calotype.models.flow import sample_noise

__all__ = ["validation_loss"]

_TIMES: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Times t at which each image's loss is computed: fixed, unshifted and evenly spaced. Most of the loss's variance is
between times (Esser et al., 2024, section 5.1), so random times would hide changes."""

_OWN: Final = 1
"""Last number of the noise's seed, which distinguishes it from the training's noise."""

BatchLoss = Callable[[Mapping[str, Any], Tensor, Tensor], Tensor]
"""(batch, noise, times (B,)) → the loss of each image (B,)."""


def validation_loss(
    accelerator: Accelerator,
    loader: Loader,
    batch_loss: BatchLoss,
    *,
    seed: int,
    given_up: Callable[[], bool] = lambda: False,
) -> float | None:
    """Return the mean loss of all held-out images and times, the same on every rank; None if it was stopped.

    Args:
        accelerator: The run's accelerator.
        loader: The loader of the held-out side. Its epoch 0 is used each time, with the same flips, captions and
            latents.
        batch_loss: The network's loss.
        seed: Seed of the noise.
        given_up: Called before each batch; returns whether to stop, the same on every rank.
    """
    total = torch.zeros(
        2, dtype=torch.float64, device="cpu" if accelerator.device.type == "mps" else accelerator.device
    )
    loader.load_state_dict({"epoch": 0})  # `total` is (sum of losses, number of losses)
    for number, batch in enumerate(loader):
        if given_up():
            return None
        latents = batch["latents"]  # (B, C, h, w)
        key = (seed, number, accelerator.process_index, _OWN)
        noise, _ = sample_noise(tuple(latents.shape), key, device=latents.device)
        for time in _TIMES:
            losses = batch_loss(batch, noise, torch.full((len(latents),), time, device=latents.device))  # (B,)
            total += torch.stack([losses.double().sum(), losses.new_tensor(len(losses), dtype=torch.float64)])
    loss, count = accelerator.reduce(total, reduction="sum").tolist()
    return float(loss / count)
