"""Colour jitter: torchvision's, with draws that follow from (seed, key)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from calotype.config.img_transform import ColorJitterConfig

__all__ = ["ColorJitter"]

_NAMES = ("brightness", "contrast", "saturation", "hue")


class ColorJitter:
    """Brightness, contrast, saturation and hue, each by a random factor and in random order.

    Args:
        options: A number or [min, max] for any of the four: 0.2 is a factor from 0.8 to 1.2 (never below 0); for
            `hue`, 0.05 is a shift from -0.05 to 0.05 turns of the color wheel, at most 0.5 either way.
    """

    def __init__(self, options: ColorJitterConfig | None) -> None:
        given = {} if options is None else options.given()
        self.ranges = {name: _range(name, value) for name, value in given.items() if value is not None}

    def __call__(self, image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """`image`, uint8 (3, H, W), with other colours."""
        # Always the same draws: switching one of the four off leaves the others as they were.
        from torchvision.transforms.v2 import functional  # here, since it takes seconds that most datasets don't need

        order = rng.permutation(len(_NAMES))
        draws = rng.random(len(_NAMES))
        for i in order:
            name = _NAMES[i]
            if name in self.ranges:
                low, high = self.ranges[name]
                image = getattr(functional, f"adjust_{name}")(image, float(low + (high - low) * draws[i]))
        return image


def _range(name: str, value: float | Sequence[float]) -> tuple[float, float]:
    if not isinstance(value, int | float):
        return float(value[0]), float(value[1])
    low, middle = (-0.5, 0.0) if name == "hue" else (0.0, 1.0)
    return max(low, middle - value), middle + value
