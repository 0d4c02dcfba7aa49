"""Chooses the size of samples: from the image transform's `resize`, or from a resolution with aspect buckets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from calotype.config.buckets import BucketsConfig
from calotype.config.img_transform import ImageTransformConfig
from calotype.errors import ConfigError
from calotype.models.spec import ModelSpec, check_image_size
from calotype.transforms.buckets import Buckets

if TYPE_CHECKING:
    from calotype.transforms.image import ImageTransform

__all__ = ["choose_buckets", "fixed_size", "usual_buckets"]


def choose_buckets(
    buckets: bool | BucketsConfig | None,
    resolution: int | Sequence[int] | None,
    transform: ImageTransform,
    spec: ModelSpec | None,
) -> Buckets | None:
    """Return the buckets of a dataset.

    Args:
        buckets: The option: options of `Buckets`, True, or None for the default.
        resolution: Side of a square in pixels, or [height, width]; None for the model's.
        transform: The image transform.
        spec: Facts of the model, if known.

    Returns:
        The buckets; None if the image transform decides the size.

    Raises:
        ConfigError: The options contradict each other, or the model does not support the size.
    """
    options: dict[str, Any] = buckets.given() if isinstance(buckets, BucketsConfig) else {}
    # A `resize`, or a callable in place of the image transform, decides the size.
    if transform.resize is not None or transform.whole:
        asked = bool(options) or buckets is True
        what = "resize" if transform.resize is not None else "a callable"
        if asked or resolution is not None:
            raise ConfigError(
                f"img_transform: found {what}, which decides the size, together with "
                f"{'buckets' if asked else 'resolution'}: expected one of them"
            )
        if spec is not None and transform.output_size is not None:
            check_image_size(spec, transform.output_size)
        return None
    # Else: buckets with the area of the resolution, whose sides the model can divide.
    needed = spec.multiple if spec is not None else 1
    options = usual_buckets(resolution, spec) | {name: value for name, value in options.items() if value is not None}
    if options["multiple"] % needed:
        raise ConfigError(
            f"buckets: found multiple={options['multiple']}, expected a multiple of {needed}, "
            f"since that is what {spec.name if spec is not None else 'the model'} divides sides by"
        )
    return Buckets(**options)


def usual_buckets(resolution: int | Sequence[int] | None, spec: ModelSpec | None) -> dict[str, Any]:
    """Return the default options of `Buckets`: the area of a resolution, and sides that the model can divide.

    Args:
        resolution: Side of a square in pixels, or [height, width]; None for the model's.
        spec: Facts of the model, if known.

    Raises:
        ConfigError: The model does not support the size.
    """
    size = _size(resolution, spec)
    needed = spec.multiple if spec is not None else 1
    return {"resolution": size, "multiple": math.lcm(64 if max(size) >= 512 else 16, needed)}


def _size(resolution: int | Sequence[int] | None, spec: ModelSpec | None) -> tuple[int, int]:
    """Return a resolution as (height, width) in pixels.

    Args:
        resolution: Side of a square, or [height, width]; None for the model's, else 1024.
        spec: Facts of the model, if known.

    Raises:
        ConfigError: It is no size, or the model does not support it.
    """
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
    """Return `img_transform` and `resolution` for `buckets: false`: all images are resized to one size.

    The resolution becomes a `resize` with a crop. If the image transform decides the size itself, both are unchanged.

    Args:
        img_transform: The option, parsed.
        resolution: Side of a square in pixels, or [height, width]; None for the model's.
        spec: Facts of the model, if known.
    """
    options = ImageTransformConfig() if img_transform is None else img_transform
    if not isinstance(options, ImageTransformConfig) or options.resize is not None:
        return img_transform, resolution
    crop = {} if options.center_crop or options.random_crop else {"center_crop": True}
    return options.updated(resize=list(_size(resolution, spec)), **crop), None
