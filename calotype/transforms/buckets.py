"""`Buckets`: aspect-ratio buckets, the few sizes to which images of any shape are resized, so that batches stack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from calotype.config.buckets import BucketsConfig
from calotype.errors import ConfigError

__all__ = ["Buckets"]


class Buckets:
    """Assign each image to a size: the sizes have nearly one area and many aspect ratios.

    Args:
        resolution: Side in pixels of the square whose area no bucket exceeds, or a (height, width) of that area.
        multiple: Divides every side, in pixels: 8 × the patch size for most latent models.
        max_aspect: Largest ratio of the longer to the shorter side, 1 or more. An image beyond it goes to the most
            extreme bucket and is cropped.
        max_upscale: Factor above which an enlarged image is reported as too small; 1.0 allows no enlargement.

    Raises:
        ConfigError: A value is out of range, or the area is too small for `multiple`.
    """

    def __init__(
        self,
        *,
        resolution: int | Sequence[int],
        multiple: int = 64,
        max_aspect: float = 2.0,
        max_upscale: float = 1.0,
    ) -> None:
        options = BucketsConfig.of(
            {"resolution": resolution, "multiple": multiple, "max_aspect": max_aspect, "max_upscale": max_upscale}
        )
        height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
        self.resolution = (height, width)
        self.multiple = options.multiple or 64
        self.max_aspect = float(options.max_aspect)
        self.max_upscale = float(options.max_upscale)
        sizes = _sizes(height * width, self.multiple, self.max_aspect)
        if not sizes:
            raise ConfigError(
                f"resolution: {height}×{width} pixels hold no size with sides that are multiples of {self.multiple}; "
                f"raise resolution to at least {self.multiple}, or lower multiple"
            )
        self.sizes = sizes
        """(height, width) of each bucket, from wide to tall."""
        self._table = np.array(sizes, dtype=np.int64)
        # The boundary of adjacent buckets is their geometric mean, the middle by log aspect ratio. IEEE 754 rounds
        # sqrt, product and quotient exactly, so all ranks agree on ties; a logarithm may differ between machines.
        aspects = self._table[:, 0] / self._table[:, 1]  # (buckets,)
        self._borders = np.sqrt(aspects[:-1] * aspects[1:])  # (buckets - 1,)

    def __repr__(self) -> str:
        return (
            f"Buckets(resolution={self.resolution}, multiple={self.multiple}, max_aspect={self.max_aspect:g}, "
            f"max_upscale={self.max_upscale:g})"
        )

    def assign(self, sizes: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the bucket of each image: the nearest by log aspect ratio, the wider one on a tie.

        Args:
            sizes: (N, 2) heights and widths in pixels.

        Returns:
            int64 (N,) indices into `self.sizes`.
        """
        sides = _sides(sizes)
        return np.searchsorted(self._borders, sides[:, 0] / sides[:, 1], side="left").astype(np.int64)

    def upscale(self, sizes: npt.ArrayLike, assigned: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
        """Return float64 (N,) factors by which images are scaled to cover their buckets; above 1 enlarges."""
        factors: npt.NDArray[np.float64] = (self._table[assigned] / _sides(sizes)).max(axis=1)
        return factors

    def describe(self, assigned: npt.NDArray[np.integer[Any]]) -> str:
        """Return a line for each bucket in use, the fullest first: `  832×1216   17 images` (height×width)."""
        counts = np.bincount(assigned, minlength=len(self.sizes))
        used = sorted(np.flatnonzero(counts), key=lambda i: -counts[i])
        lines = []
        for i in used:
            height, width = self.sizes[i]
            lines.append(f"{height:>6}×{width:<6}{counts[i]:>8} image{'s' if counts[i] != 1 else ''}")
        return "\n".join(lines)


def _sizes(area: int, multiple: int, max_aspect: float) -> tuple[tuple[int, int], ...]:
    """Return all (height, width) within `area` and `max_aspect`, from wide to tall.

    Each short side has the largest long side with short × long ≤ `area`: no bucket needs more memory than the square,
    and none could be longer by one `multiple`.
    """
    found = set()
    for short in range(multiple, math.isqrt(area) + 1, multiple):
        long = area // short // multiple * multiple
        if long <= short * max_aspect:
            found |= {(short, long), (long, short)}
    square = math.isqrt(area) // multiple * multiple
    if square:
        found.add((square, square))
    return tuple(sorted(found, key=lambda size: size[0] / size[1]))


def _sides(sizes: npt.ArrayLike) -> npt.NDArray[np.int64]:
    sides = np.asarray(sizes, dtype=np.int64).reshape(-1, 2)
    if (sides < 1).any():
        row = int(np.flatnonzero((sides < 1).any(axis=1))[0])
        raise ValueError(f"sizes: row {row} is {tuple(sides[row].tolist())}; expected (height, width) of at least 1")
    return sides
