"""`ColorJitter`: torchvision's, with an explicit random generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from calotype.config.img_transform import ColorJitterConfig

__all__ = ["ColorJitter"]

_NAMES = ("brightness", "contrast", "saturation", "hue")


class ColorJitter:
    """Adjust brightness, contrast, saturation and hue by random factors, in random order.

    Args:
        options: A number or [min, max] for any of the four, as in `torchvision.transforms.v2.ColorJitter`: 0.2 is a
            factor in [0.8, 1.2], never below 0; for `hue`, 0.05 is a shift in [-0.05, 0.05] turns of the color wheel,
            at most ±0.5.
    """

    def __init__(self, options: ColorJitterConfig | None) -> None:
        given = {} if options is None else options.given()
        self.ranges = {name: _range(name, value) for name, value in given.items() if value is not None}

    def __call__(self, image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Adjust the colours of an image, uint8 (3, H, W)."""
        from torchvision.transforms.v2 import functional  # imported here: it takes seconds and few datasets need it

        # The number of draws is constant: turning one adjustment off does not change the others.
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
