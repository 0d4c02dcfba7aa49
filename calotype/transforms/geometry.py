"""The arithmetic of crop, resize and rotate; no pixels."""

from __future__ import annotations

import math

from calotype.types import Geometry

__all__ = ["around_rotation", "cover_box", "keep_aspect", "make_geometry"]

_MARGIN = 2
"""Output pixels added on each axis around a rotated box, for interpolation at its corners."""


def keep_aspect(original_size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Return (height, width) with the given shorter side and the same aspect; the longer side is rounded down, as in
    torchvision's `Resize`."""
    height, width = original_size
    if height <= width:
        return shorter, int(shorter * width / height)
    return int(shorter * height / width), shorter


def cover_box(original_size: tuple[int, int], target_size: tuple[int, int]) -> tuple[float, float]:
    """Return (height, width) of the largest part of the original with the target's aspect."""
    height, width = original_size
    scale = max(target_size[0] / height, target_size[1] / width)
    return target_size[0] / scale, target_size[1] / scale


def around_rotation(target_size: tuple[int, int], angle: float) -> tuple[float, float]:
    """Return (height, width) of the bounding box of a rotated target, as multiples of the target's sides."""
    if angle == 0.0:
        return 1.0, 1.0
    height, width = target_size
    cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    return (height * cos + width * sin + _MARGIN) / height, (width * cos + height * sin + _MARGIN) / width


def make_geometry(
    original_size: tuple[int, int],
    target_size: tuple[int, int],
    part: tuple[float, float],
    *,
    position: tuple[float, float] | None,
    angle: float,
    flip: tuple[bool, bool],
) -> Geometry:
    """Return the geometry of a crop that is resized to the target's size.

    Args:
        original_size: (height, width) of the upright image, in pixels.
        target_size: (height, width) of the sample, in pixels.
        part: (height, width) of the crop, in pixels of the original. It shrinks where the rotated crop would not fit.
        position: (vertical, horizontal) of the crop in [0, 1): 0 is the top or left border. None is the centre.
        angle: Rotation of the crop in degrees, counter-clockwise.
        flip: (horizontal, vertical).
    """
    around = around_rotation(target_size, angle)
    fit = min(1.0, *(original_size[a] / (part[a] * around[a]) for a in (0, 1)))
    # A rotated crop must not be rounded up beyond the image.
    whole_pixels = round if angle == 0.0 else math.floor
    sides = [min(original_size[a], max(1, whole_pixels(part[a] * fit))) for a in (0, 1)]
    starts, resized_starts = [], []
    for a in (0, 1):
        # Margin on both sides of the crop for the corners of the rotated box.
        spare = max(0.0, sides[a] * (around[a] - 1) / 2)
        first, last = math.ceil(spare), math.floor(original_size[a] - sides[a] - spare)
        # Side of the whole image at the scale of the sample; rounded down, as torchvision does.
        whole = original_size[a] * target_size[a] // sides[a]
        if position is None or first > last:
            start = round((original_size[a] - sides[a]) / 2)
            # In the resized image, as `torchvision.transforms.CenterCrop` and diffusers' SDXL scripts count.
            resized_start = max(0, round((whole - target_size[a]) / 2))
        else:
            start = first + math.floor(position[a] * (last - first + 1))
            resized_start = round(start * target_size[a] / sides[a])
            if flip[1 - a]:
                # SDXL's scripts flip the whole image before they crop: count from the other border.
                resized_start = max(0, whole - target_size[a] - resized_start)
        starts.append(start)
        resized_starts.append(resized_start)
    return Geometry(
        original_size=original_size,
        box=(starts[0], starts[1], sides[0], sides[1]),
        crop_top_left=(resized_starts[0], resized_starts[1]),
        target_size=target_size,
        rotate=angle,
        flip=flip,
    )
