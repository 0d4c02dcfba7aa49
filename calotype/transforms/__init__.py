"""Transforms of images and captions: crop, resize, flip, colour; choose, shuffle, drop. Aspect buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calotype.core.lazy import exports
from calotype.core.placeholders import PLACEHOLDER

if TYPE_CHECKING:
    from calotype.transforms.buckets import Buckets
    from calotype.transforms.caption import CaptionDraw, CaptionTransform, Part
    from calotype.transforms.image import ImageOutcome, ImageTransform

__all__ = ["PLACEHOLDER", "Buckets", "CaptionDraw", "CaptionTransform", "ImageOutcome", "ImageTransform", "Part"]

__getattr__ = exports(
    __name__,
    {
        "Buckets": ".buckets",
        "CaptionDraw": ".caption",
        "CaptionTransform": ".caption",
        "ImageOutcome": ".image",
        "ImageTransform": ".image",
        "Part": ".caption",
    },
    former={"CaptionProgram": "CaptionTransform", "ImageProgram": "ImageTransform"},
)
