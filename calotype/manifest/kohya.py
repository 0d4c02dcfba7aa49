"""kohya's repeat folders: `10_name` shows each of its images ten times an epoch and names their class."""

from __future__ import annotations

import re

import pyarrow as pa

from calotype.manifest.listing import Listing
from calotype.manifest.reading import Part, Reading

__all__ = ["KOHYA_FOLDER", "kohya_folders", "weighted"]

KOHYA_FOLDER = re.compile(r"([1-9]\d{0,2})_(.+)")
"""kohya's `10_name`: repeats and class; no year (2024_holiday) and no counter (01_beach) looks like this."""


def kohya_folders(listing: Listing, reading: Reading) -> dict[str, tuple[float, str]]:
    """Name of each top folder that is a kohya repeat folder → repeats, class name."""
    found: dict[str, tuple[float, str]] = {}
    for top in sorted({name.partition("/")[0] for name in listing.images if "/" in name}):
        match = KOHYA_FOLDER.fullmatch(top)
        if match:
            found[top] = float(match[1]), match[2]
            reading.note(f"{top}: kohya repeat folder, each picture is shown {match[1]} times an epoch")
    return found


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
