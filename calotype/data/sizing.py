"""Who decides the size of a sample: the model, a `resize`, or a resolution with aspect buckets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from calotype.config.buckets import BucketsConfig
from calotype.config.img_transform import ImageTransformConfig
from calotype.errors import ConfigError
from calotype.models import ModelSpec, check_image_size
from calotype.transforms import Buckets, ImageTransform

__all__ = ["choose_buckets", "fixed_size"]


def choose_buckets(
    buckets: bool | BucketsConfig | None,
    resolution: int | Sequence[int] | None,
    program: ImageTransform,
    spec: ModelSpec | None,
) -> Buckets | None:
    """The size question: the image program's `resize`, or a resolution with buckets. The model has the last word."""
    options: dict[str, Any] = buckets.given() if isinstance(buckets, BucketsConfig) else {}
    if program.resize is not None or program.whole:
        asked = bool(options) or buckets is True
        what = "resize" if program.resize is not None else "a callable"
        if asked or resolution is not None:
            raise ConfigError(
                f"img_transform: found {what}, which decides the size, together with "
                f"{'buckets' if asked else 'resolution'}: expected one of them"
            )
        if spec is not None and program.output_size is not None:
            check_image_size(spec, program.output_size)
        return None
    size = _size(resolution, spec)
    needed = spec.multiple if spec is not None else 1
    usual: dict[str, Any] = {"resolution": size, "multiple": math.lcm(64 if max(size) >= 512 else 16, needed)}
    options = usual | {name: value for name, value in options.items() if value is not None}
    if options["multiple"] % needed:
        raise ConfigError(
            f"buckets: found multiple={options['multiple']}, expected a multiple of {needed}, "
            f"since that is what {spec.name if spec is not None else 'the model'} divides sides by"
        )
    return Buckets(**options)


def _size(resolution: int | Sequence[int] | None, spec: ModelSpec | None) -> tuple[int, int]:
    """(height, width) to make, or to keep the area of; the model has to be able to take it."""
    if resolution is None:
        resolution = spec.resolution if spec is not None else 1024
    size = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ConfigError(f"resolution: found {resolution!r}, expected one number or [height, width] in pixels")
    if spec is not None:
        check_image_size(spec, (size[0], size[1]))
    return size[0], size[1]


def fixed_size(
    img_transform: Any, resolution: int | Sequence[int] | None, spec: ModelSpec | None
) -> tuple[Any, int | Sequence[int] | None]:
    """`img_transform` and `resolution` for `buckets: false`: every image is brought to one size.

    The resolution becomes a `resize` with a crop; where the image program decides the size itself, both stay.
    """
    options = ImageTransformConfig() if img_transform is None else img_transform
    if not isinstance(options, ImageTransformConfig) or options.resize is not None:
        return img_transform, resolution
    crop = {} if options.center_crop or options.random_crop else {"center_crop": True}
    return options.updated(resize=list(_size(resolution, spec)), **crop), None
