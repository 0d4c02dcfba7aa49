"""Colour jitter: torchvision's, with draws that follow from (seed, key)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from calotype.errors import ConfigError
from calotype.transforms.options import known_keys, span

__all__ = ["ColorJitter"]

_NAMES = ("brightness", "contrast", "saturation", "hue")


class ColorJitter:
    """Brightness, contrast, saturation and hue, each by a random factor and in random order.

    Args:
        options: Any of the four names → a number or [min, max], as `torchvision.transforms.v2.ColorJitter` takes them:
            0.2 is a factor from 0.8 to 1.2 (never below 0); for `hue`, 0.05 is a shift from -0.05 to 0.05 turns of the
            colour wheel, at most 0.5 either way.
    """

    def __init__(self, options: Any) -> None:
        if not isinstance(options, Mapping):
            raise ConfigError(
                f"color_jitter: found {options!r}; expected a mapping such as {{brightness: 0.1, contrast: 0.1}}"
            )
        known_keys(options, _NAMES, where="color_jitter")
        self.ranges = {name: _range(name, value) for name, value in options.items() if value is not None}

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


def _range(name: str, value: Any) -> tuple[float, float]:
    key = f"color_jitter.{name}"
    low, high, middle = (-0.5, 0.5, 0.0) if name == "hue" else (0.0, 1e6, 1.0)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value <= (high if name == "hue" else 1e6 - 1):
            raise ConfigError(f"{key}: found {value!r}; expected 0 to {high:g}, such as 0.05, or [min, max]")
        return max(low, middle - value), middle + value
    return span(value, key=key, low=low, high=high, example="[-0.05, 0.05]" if name == "hue" else "[0.9, 1.1]")
