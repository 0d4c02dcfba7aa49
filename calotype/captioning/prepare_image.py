"""`prepare_image`: decodes an image for a captioner: upright, sRGB, without alpha, limited to a pixel budget."""

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
"""Default pixel budget: about what current captioners use; 0.25 MB as JPEG."""

_READER: Final = ImageReader(decode="fast")


def prepare_image(
    image: ImageRef | str | Path | bytes, *, pixels: int = MAX_PIXELS, reader: ImageReader = _READER
) -> Image.Image:
    """Return the image for a `CaptionRequest`.

    Args:
        image: A row's reference, a path, or the bytes of an image file.
        pixels: Larger images are downscaled to this number of pixels with their aspect ratio; smaller ones are not
            resized.
        reader: Decodes the image; has the background colour, the fetcher and the pixel limit.

    Returns:
        RGB, upright by its EXIF orientation, converted to sRGB by its ICC profile, the first frame of an animation.

    Raises:
        ImageError: The image can't be read.
    """
    if isinstance(image, bytes):
        ref, data = ImageRef(name="image"), image
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
    planes = crop_resize(found.pixels, whole, "lanczos").numpy()  # (3, H, W); equals Pillow's result, ten times as fast
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])  # a permute in torch would use all cores


def fit(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Return (H, W) with the same aspect ratio and at most `pixels` pixels; never larger than `size`."""
    height, width = size
    if height * width <= pixels:
        return size
    scale = math.sqrt(pixels / (height * width))
    if min(height, width) * scale < 1:  # extreme aspect ratio: the short side stays 1
        return (1, min(width, pixels)) if height < width else (min(height, pixels), 1)
    return int(height * scale), int(width * scale)
