"""What a folder's listing left out, where people look: in the ledger, and in the notes of `Manifest.describe`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from calotype.manifest.listing import LeftOut, Listing, readable
from calotype.manifest.reading import Part, Reading

__all__ = ["name_left_out"]

_KINDS: Final = {
    "companion": "images that are no samples",
    "regularisation": "regularisation images",
    "archive": "packed files",
    "link_loop": "links to folders above them",
    "broken_link": "links that lead nowhere",
}
"""Kind in the ledger → what a note calls them. What `exclude` leaves out needs none."""


def name_left_out(folder: Path, listing: Listing, parts: Sequence[Part], reading: Reading) -> None:
    """Enter what was left out of a listing into the ledger, but images that a metadata file lists as rows."""
    lead = reading.relative(folder)
    lead = "" if lead == "." else f"{lead}/"
    rows = {path for part in parts for path in part.paths().to_pylist()} if listing.left_out else set()
    by_kind: dict[str, list[LeftOut]] = defaultdict(list)
    for each in listing.left_out:
        if lead + each.name not in rows:
            reading.ledger.add(each.kind, f"{folder}/{readable(each.name)}", each.reason)
            by_kind[each.kind].append(each)
    for kind, several in by_kind.items():
        if kind in _KINDS:
            first, more = several[0], f" and {len(several) - 1:,} more" if len(several) > 1 else ""
            reading.note(f"{_KINDS[kind]} are left out: {readable(lead + first.name)}{more} ({first.reason})")
    for doubt in listing.doubts:
        reading.note(doubt)
