"""kohya's repeat folders: images in `10_name` are shown 10 times per epoch and have the class `name`."""

from __future__ import annotations

import re

import pyarrow as pa

from calotype.manifest.folders.listing import Listing
from calotype.manifest.reading import Part, Reading

__all__ = ["kohya_folder", "kohya_folders", "weighted"]

KOHYA_FOLDER = re.compile(r"([1-9]\d{0,2})_(.+)")
"""Repeats and class. Neither a year (2024_holiday) nor a counter (01_beach) matches."""
_NOTED = 20
"""Maximum number of folders that each have a note."""


def kohya_folders(listing: Listing, reading: Reading) -> dict[str, tuple[float, str]]:
    """Find the folders with images in a kohya repeat folder, at any depth; the innermost repeat folder counts.

    Returns:
        Folder of the images, relative to the listing's folder, without a trailing slash → (repeats, class name).
    """
    found: dict[str, tuple[float, str]] = {}
    noted: list[str] = []
    for folder in sorted({name.rpartition("/")[0] for name in listing.images}):
        inner = kohya_folder(folder)
        if inner is not None:
            path, repeats, class_name = inner
            found[folder] = float(repeats), class_name
            if path not in noted:
                noted.append(path)
                if len(noted) <= _NOTED:
                    reading.note(f"{path}: kohya repeat folder, each image is shown {repeats} times an epoch")
    if len(noted) > _NOTED:
        reading.note(f"{len(noted) - _NOTED} more kohya repeat folders")
    return found


def kohya_folder(folder: str) -> tuple[str, int, str] | None:
    """Return path, repeats and class name of the innermost repeat folder that a path is or is in."""
    parts = folder.split("/")
    for depth in range(len(parts), 0, -1):
        if match := KOHYA_FOLDER.fullmatch(parts[depth - 1]):
            return "/".join(parts[:depth]), int(match[1]), match[2]
    return None


def weighted(part: Part, weights: dict[str, float]) -> Part:
    """Use the folders' repeats as weights of the rows that have none."""
    own = part.table["weight"].to_pylist()
    filled = [
        weights.get(path) if weight is None else weight
        for path, weight in zip(part.paths().to_pylist(), own, strict=True)
    ]
    return part.with_column("weight", pa.array(filled, pa.float64()))
