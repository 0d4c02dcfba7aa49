"""Facts that need the pixels: damage inside a file, hashes of the content, and whether it is greyscale."""

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
"""Pixels that are left of the shorter side before a perceptual hash is taken: four times what it resizes to."""
_SPARSE: Final = 16

_SIDE: Final = 32
_COSINES: Final = 2 * np.cos(np.pi / (2 * _SIDE) * np.outer(np.arange(8), 2 * np.arange(_SIDE) + 1))
"""(8, 32): the first rows of the type-II DCT, not normalised."""


class PixelFacts(NamedTuple):
    """Of one image, decoded as training decodes it."""

    pixels: bytes | None
    """xxh3-128 of the shape and the upright sRGB bytes; None when they can't be decoded."""
    phash: int | None
    notes: tuple[str, ...]
    """`Decoded.notes`; and `grey` when all pixels are."""
    problem: tuple[str, str] | None
    """(kind of finding, detail) when they can't be decoded."""

    @property
    def lasting(self) -> bool:
        """Whether it follows from the file's bytes; a lack of memory does not."""
        return self.problem is None or self.problem[0] != "unreadable"


def pixel_facts(ref: ImageRef, data: bytes, reader: ImageReader) -> PixelFacts:
    """Decodes a whole image.

    Args:
        ref: Whose it is.
        data: The encoded file.
        reader: Its background and limit of pixels.
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
    """The 64-bit DCT hash of uint8 (H, W, 3), as `imagehash.phash` gives it, after a reduction by a whole factor.

    The hash looks at 32×32 pixels; averaging blocks first, to no less than four times that, is three times as fast and
    moves few or no bits. Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010.
    """
    image = Image.fromarray(pixels)
    factor = min(image.size) // _LEAST
    if factor > 1:
        image = image.reduce(factor)
    small = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), np.float64)
    # Rounded: what is nothing but the noise of floating point is 0, and sets no bits.
    low = (_COSINES @ small @ _COSINES.T).round(6)  # (8, 8): down, across
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes())


def is_grey(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether the three channels of uint8 (H, W, 3) are equal everywhere."""
    sparse = pixels[::_SPARSE, ::_SPARSE]  # enough to see that nearly all images are not
    return all(bool((part[..., :1] == part[..., 1:]).all()) for part in (sparse, pixels))


@cache
def decoders() -> str:
    """The decoders' versions: another one may read what this one could not, or give other pixels."""
    found = []
    for package in ("pillow", "simplejpeg", "pillow-heif"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
