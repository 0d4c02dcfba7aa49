"""Facts from the pixels of an image: damage inside the file, content hashes, and whether it is greyscale."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash
from PIL import Image

from calotype.errors import ImageError
from calotype.images import ImageReader
from calotype.types import ImageRef

__all__ = ["PixelFacts", "decoders", "is_grey", "perceptual_hash", "pixel_facts"]

_LEAST: Final = 128
"""Minimum length of the shorter side, in pixels, after the block average of `perceptual_hash`: 4 times `_SIDE`."""
_SPARSE: Final = 16

_SIDE: Final = 32
_COSINES: Final = 2 * np.cos(np.pi / (2 * _SIDE) * np.outer(np.arange(8), 2 * np.arange(_SIDE) + 1))
"""(8, 32): the first rows of the type-II DCT, unnormalised."""


class PixelFacts(NamedTuple):
    """Facts from the pixels of one image, decoded as in training."""

    pixels: bytes | None
    """xxh3-128 of the shape and the upright sRGB bytes; None if they can't be decoded."""
    phash: int | None
    notes: tuple[str, ...]
    """`Decoded.notes`; and `grey` if all pixels are grey."""
    problem: tuple[str, str] | None
    """(kind of finding, detail) if they can't be decoded."""

    @property
    def lasting(self) -> bool:
        """Whether the facts depend on the file's bytes only; a lack of memory does not."""
        return self.problem is None or self.problem[0] != "unreadable"


def pixel_facts(ref: ImageRef, data: bytes, reader: ImageReader) -> PixelFacts:
    """Decode a whole image and compute its facts.

    Args:
        ref: The image.
        data: The encoded file.
        reader: Has the background colour and the pixel limit.
    """
    try:
        decoded = reader.read(ref, data=data)
    except ImageError as error:
        return PixelFacts(None, None, (), (error.kind, error.reason))
    pixels = decoded.pixels
    digest = xxhash.xxh3_128(repr(pixels.shape).encode())
    digest.update(pixels.data)
    notes = (*decoded.notes, "grey") if is_grey(pixels) else decoded.notes
    return PixelFacts(digest.digest(), perceptual_hash(pixels), notes, None)


def perceptual_hash(pixels: npt.NDArray[np.uint8]) -> int:
    """Return the 64-bit DCT hash of an image, as `imagehash.phash` computes it, after a block average.

    The hash is computed on 32×32 pixels. A block average to at least 4 times that size makes it three times as fast and
    changes few or no bits. Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010.

    Args:
        pixels: uint8 (H, W, 3), sRGB.
    """
    image = Image.fromarray(pixels)
    factor = min(image.size) // _LEAST
    if factor > 1:
        image = image.reduce(factor)
    small = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), np.float64)  # (32, 32)
    # Rounded, so that floating-point noise around 0 sets no bits.
    low = (_COSINES @ small @ _COSINES.T).round(6)  # (8, 8): down, across
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes())


def is_grey(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether the three channels of uint8 (H, W, 3) are equal everywhere."""
    sparse = pixels[::_SPARSE, ::_SPARSE]  # nearly all colour images already differ here
    return all(bool((part[..., :1] == part[..., 1:]).all()) for part in (sparse, pixels))


@cache
def decoders() -> str:
    """Return the versions of the decoders: another version may read more files, or return other pixels."""
    found = []
    for package in ("pillow", "simplejpeg", "pillow-heif"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
