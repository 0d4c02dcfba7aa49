"""`prepare_image`: an image as a captioner should see it: upright, sRGB, without alpha, no larger than it needs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from calotype.core.lazy import exports
from calotype.images import ImageReader
from calotype.transforms.resample import crop_resize
from calotype.types import Geometry, ImageRef

__all__ = ["MAX_PIXELS", "fit", "prepare_image"]

if not TYPE_CHECKING:
    __getattr__ = exports(__name__, {"prepare_image": __name__}, former={"prepare_picture": "prepare_image"})

MAX_PIXELS: Final = 1024 * 1024
"""The usual budget: what today's captioners make use of, and a quarter of a megabyte to send as JPEG."""

_READER: Final = ImageReader(decode="fast")


def prepare_image(
    image: ImageRef | str | Path | bytes, *, pixels: int = MAX_PIXELS, reader: ImageReader = _READER
) -> Image.Image:
    """The image for a `CaptionRequest`.

    Args:
        image: A row's reference, a file's path, or the bytes of a file.
        pixels: Larger images are made smaller until they have at most so many, with their aspect ratio; smaller
            ones stay as they are.
        reader: Reads it: what shows through transparent pixels, what may be fetched, and how large it may be.

    Returns:
        RGB, upright by its EXIF orientation, converted to sRGB by its ICC profile, the first frame of an animation.

    Raises:
        ImageError: The image can't be had.
    """
    if isinstance(image, bytes):
        ref, data = ImageRef(name="picture"), image
    else:
        ref = image if isinstance(image, ImageRef) else ImageRef(name=str(image), path=str(Path(image).expanduser()))
        data = None
    found = reader.read(ref, data=data, need=lambda size: fit(size, pixels))
    size = fit(found.original_size, pixels)
    if size == found.pixels.shape[:2]:
        return Image.fromarray(found.pixels)
    whole = Geometry(
        original_size=found.original_size, box=(0, 0, *found.original_size), crop_top_left=(0, 0), target_size=size
    )
    planes = crop_resize(found.pixels, whole, "lanczos").numpy()  # (3, H, W); as Pillow's, in a tenth of its time
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])  # torch would copy with all cores


def fit(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """(H, W) of the same shape with at most `pixels` pixels; `size` itself if that has no more."""
    height, width = size
    if height * width <= pixels:
        return size
    scale = math.sqrt(pixels / (height * width))
    if min(height, width) * scale < 1:  # a thread of pixels: its short side can't shrink below one
        return (1, min(width, pixels)) if height < width else (min(height, pixels), 1)
    return int(height * scale), int(width * scale)
