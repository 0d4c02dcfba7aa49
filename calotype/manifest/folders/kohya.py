"""kohya's repeat folders: `10_name` shows each of its images ten times an epoch and names their class."""

from __future__ import annotations

import re

import pyarrow as pa

from calotype.manifest.folders.listing import Listing
from calotype.manifest.reading import Part, Reading

__all__ = ["kohya_folder", "kohya_folders", "weighted"]

KOHYA_FOLDER = re.compile(r"([1-9]\d{0,2})_(.+)")
"""kohya's `10_name`: repeats and class; no year (2024_holiday) and no counter (01_beach) looks like this."""
_NOTED = 20
"""Folders that are noted one by one."""


def kohya_folders(listing: Listing, reading: Reading) -> dict[str, tuple[float, str]]:
    """Find the folders with images that are in a kohya repeat folder, at any depth; the innermost counts.

    Returns:
        Folder of the images, relative to the listing's and without a slash at its end → repeats, class name.
    """
    found: dict[str, tuple[float, str]] = {}
    noted: list[str] = []
    for folder in sorted({name.rpartition("/")[0] for name in listing.images}):
        inner = kohya_folder(folder)
        if inner is not None:
            home, repeats, class_name = inner
            found[folder] = float(repeats), class_name
            if home not in noted:
                noted.append(home)
                if len(noted) <= _NOTED:
                    reading.note(f"{home}: kohya repeat folder, each image is shown {repeats} times an epoch")
    if len(noted) > _NOTED:
        reading.note(f"{len(noted) - _NOTED} more kohya repeat folders")
    return found


def kohya_folder(folder: str) -> tuple[str, int, str] | None:
    """The innermost kohya repeat folder that a path is or lies in: its path, repeats and class name."""
    parts = folder.split("/")
    for depth in range(len(parts), 0, -1):
        if match := KOHYA_FOLDER.fullmatch(parts[depth - 1]):
            return "/".join(parts[:depth]), int(match[1]), match[2]
    return None


def weighted(part: Part, weights: dict[str, float]) -> Part:
    """With the folders' repeats where the metadata gives no weight of its own."""
    given = part.table["weight"].to_pylist()
    filled = [
        weights.get(path) if weight is None else weight
        for path, weight in zip(part.paths().to_pylist(), given, strict=True)
    ]
    place = part.table.column_names.index("weight")
    table = part.table.set_column(place, "weight", pa.array(filled, pa.float64()))
    return Part(table=table, where=part.where, explicit_ids=part.explicit_ids)
