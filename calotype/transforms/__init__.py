"""What is done to pictures and captions between reading them and handing them to a model."""

from __future__ import annotations

from calotype.core.placeholders import PLACEHOLDER
from calotype.transforms.buckets import Buckets
from calotype.transforms.caption import CaptionDraw, CaptionProgram, Part
from calotype.transforms.image import ImageOutcome, ImageProgram

__all__ = ["PLACEHOLDER", "Buckets", "CaptionDraw", "CaptionProgram", "ImageOutcome", "ImageProgram", "Part"]
