"""Hugging Face's imagefolder: pictures, and a `metadata.jsonl` that names them."""

from __future__ import annotations

from calotype.convert.form import Images
from calotype.convert.jsonl import JsonLines

__all__ = ["ImageFolder"]


class ImageFolder(JsonLines):
    """A folder that `datasets.load_dataset("imagefolder", data_dir=…)` reads as it is."""

    name = "imagefolder"
    images: tuple[Images, ...] = ("copy", "link")
