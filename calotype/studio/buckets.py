"""The training buckets of images, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calotype.config import Config
from calotype.errors import ConfigError
from calotype.models import get_spec

__all__ = ["bucket_namer"]


def bucket_namer(config: Config) -> Callable[[npt.NDArray[np.float64]], list[str]] | None:
    """Return a function from (height, width) of images, (N, 2), to names such as `768x512` (width first).

    Args:
        config: The config.

    Returns:
        The function; None if the config has no buckets.
    """
    # Imported here: they import torch, which a review needs for this and for samples only.
    from calotype.data.sizing import choose_buckets
    from calotype.transforms.image import ImageTransform

    section, model = config.our_dataset("reviewed"), config.any_model
    if section.buckets is False:
        return None
    spec: Any = None
    try:
        if model is not None and Path(model).expanduser().is_dir():
            from calotype.encodings.frozen import FrozenModels

            spec = FrozenModels(model).spec
        elif model is not None:
            spec = get_spec(model)
        transform = ImageTransform.from_config(section.img_transform, where="img_transform")
        buckets = choose_buckets(section.buckets, section.resolution, transform, spec)
    except ConfigError:
        return None  # the augmentation panel shows why
    if buckets is None:
        return None
    names = [f"{width}x{height}" for height, width in buckets.sizes]
    return lambda sizes: [names[index] for index in buckets.assign(sizes)]
