"""The share of each image that training shows, and its scale, computed from the dataset's buckets and transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from calotype.data.dataset import TextToImageDataset
from calotype.transforms import ImageTransform
from calotype.types import SampleKey

__all__ = ["Framing", "framing"]

_DRAWS: Final = 8
"""Number of epochs that a random geometry is averaged over."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """Crop and scale of N images."""

    target: npt.NDArray[np.int64]
    """(N, 2): (height, width) of the sample."""
    scale: Floats
    """(N,): sample pixels per original pixel; above 1 the image is enlarged."""
    lost: Floats
    """(N,): share of the original's area that is not shown in one epoch."""
    drawn: bool
    """Whether the crop's size is random; `scale` and `lost` are then those of its mean."""


def framing(
    dataset: TextToImageDataset,
    rows: npt.NDArray[np.intp],
    sizes: npt.NDArray[np.int32],
    stated: npt.NDArray[np.int32],
) -> Framing | None:
    """Compute crop and scale of some rows' images; None if callables decide their size.

    Args:
        dataset: Has the buckets and the image transform.
        rows: int (N,), indices of the images.
        sizes: int32 (N, 2), the upright (height, width) of the images.
        stated: int32 (N, 2), sizes in the data file, 0 if unknown; they assign buckets first, as in training.
    """
    transform = dataset.img_transform
    if transform.whole:
        return None
    if not len(rows):
        return Framing(target=np.zeros((0, 2), np.int64), scale=np.zeros(0), lost=np.zeros(0), drawn=False)
    target: npt.NDArray[np.int64] | None = None
    if dataset.buckets is not None:
        known = np.where((stated > 0).all(axis=1, keepdims=True), stated, sizes)
        target = np.array(dataset.buckets.sizes, np.int64)[dataset.buckets.assign(known)]
    elif transform.output_size is not None and (transform.center_crop or transform.random_crop):
        target = np.broadcast_to(np.array(transform.output_size, np.int64), sizes.shape)
    if target is not None and transform.rotate == (0.0, 0.0):
        return _covering(transform, sizes, target)
    return _drawing(dataset, rows, sizes, target)


def _covering(transform: ImageTransform, sizes: npt.NDArray[np.int32], target: npt.NDArray[np.int64]) -> Framing:
    """Compute the framing of a scale that covers the target and a crop, as `transforms.geometry.cover_box` does."""
    scale: Floats = (target / sizes).max(axis=1)
    shown = target.prod(axis=1) / (scale**2 * sizes.astype(np.float64).prod(axis=1))
    low, high = transform.crop_scale or (1.0, 1.0)
    area = (low + high) / 2  # mean of the uniform distribution
    return Framing(target=target, scale=scale / np.sqrt(area), lost=1 - shown * area, drawn=low != high)


def _drawing(
    dataset: TextToImageDataset,
    rows: npt.NDArray[np.intp],
    sizes: npt.NDArray[np.int32],
    target: npt.NDArray[np.int64] | None,
) -> Framing:
    """Sample the geometry once per distinct (size, target); a random one is averaged over `_DRAWS` epochs."""
    transform = dataset.img_transform
    pairs = sizes.astype(np.int64) if target is None else np.concatenate([sizes, target], axis=1)
    kinds, first, kind_of = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    targets = np.zeros((len(kinds), 2), np.int64)
    scale, lost = np.zeros(len(kinds)), np.zeros(len(kinds))
    draws = 1 if transform.fixed_geometry else _DRAWS
    for kind, pair in enumerate(kinds.tolist()):
        height, width = pair[:2]
        size = None if target is None else (pair[2], pair[3])
        for epoch in range(draws):
            key = SampleKey(int(rows[first[kind]]), epoch=epoch, size=size)
            geometry = transform.draw((height, width), key, dataset.seed)
            targets[kind] = geometry.target_size
            scale[kind] += geometry.scale / draws
            lost[kind] += (1 - geometry.box[2] * geometry.box[3] / (height * width)) / draws
    place = kind_of.reshape(-1)
    return Framing(target=targets[place], scale=scale[place], lost=lost[place], drawn=draws > 1)
