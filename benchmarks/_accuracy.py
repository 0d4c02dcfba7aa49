"""Compare a contestant's pixels with PIL's: all of them must do the same work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float32]


class Reference:
    """PIL's Lanczos on the same photos.

    Contestants shuffle, so an image is first recognised by a thumbnail. Two ways to round are both taken as right:
    to scale the whole photo to whole pixels and then crop (torchvision), or to scale the centred square itself; a
    contestant is held against the nearer.
    """

    def __init__(self, files: list[Path], size: int) -> None:
        self._files = files
        self._size = size
        self._thumbnails = np.stack([_thumbnail(_draft(file)) for file in files])

    def psnr(self, batch: NDArray[np.generic]) -> float:
        """The median over a batch (B, 3, S, S), uint8 or float in [-1, 1], of the PSNR in dB; 99 for equal pixels.

        Raises:
            ValueError: The batch has another shape or range than it should.
        """
        if batch.shape[1:] != (3, self._size, self._size):
            raise ValueError(f"a batch is {batch.shape}, expected (B, 3, {self._size}, {self._size})")
        pixels = batch.astype(np.float32) if batch.dtype == np.uint8 else (batch.astype(np.float32) + 1) * 127.5
        if pixels.min() < -0.5 or pixels.max() > 255.5 or np.ptp(pixels) < 16:
            raise ValueError(f"pixels run from {pixels.min()} to {pixels.max()}, expected 0 to 255")
        return float(np.median([self._one(image.transpose(1, 2, 0)) for image in pixels]))

    def _one(self, pixels: Pixels) -> float:
        thumbnail = _thumbnail(Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)))
        nearest = int(np.abs(self._thumbnails - thumbnail).mean(axis=(1, 2, 3)).argmin())
        with Image.open(self._files[nearest]) as opened:
            photo = opened.convert("RGB")
        return max(_psnr(pixels, way(photo, self._size)) for way in (_scale_then_crop, _scale_the_square))


def _draft(file: Path) -> Image.Image:
    image = Image.open(file)
    image.draft("RGB", (256, 256))
    return image.convert("RGB")


def _thumbnail(image: Image.Image) -> Pixels:
    """(16, 16, 3) of the centred square."""
    return np.asarray(_scale_the_square(image, 16), dtype=np.float32)


def _scale_the_square(photo: Image.Image, size: int) -> Image.Image:
    side = min(photo.size)
    left, top = (photo.width - side) / 2, (photo.height - side) / 2
    return photo.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def _scale_then_crop(photo: Image.Image, size: int) -> Image.Image:
    short = min(photo.size)
    width, height = int(photo.width * size / short), int(photo.height * size / short)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return photo.resize((width, height), Image.Resampling.LANCZOS).crop((left, top, left + size, top + size))


def _psnr(pixels: Pixels, expected: Image.Image) -> float:
    error = float(np.mean((pixels - np.asarray(expected, dtype=np.float32)) ** 2))
    return 99.0 if error < 1e-5 else min(99.0, 10 * float(np.log10(255**2 / error)))
