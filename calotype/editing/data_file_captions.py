"""Captions in data files: CSV, TSV, JSON and JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from calotype.editing.captions import Captions, Change
from calotype.editing.document import Document
from calotype.editing.locations import Location, entries_by_id, set_captions, set_rejected
from calotype.errors import EditError
from calotype.manifest.reading import Reading

__all__ = ["DataFileCaptions"]


class DataFileCaptions(Captions):
    """The captions of one data file, or of several that are one dataset.

    Args:
        files: In the manifest's order.
        reading: How the manifest reads them.
    """

    takes_sidecars = False

    def __init__(self, files: Sequence[Path], reading: Reading) -> None:
        super().__init__(reading)
        self.root = reading.common_root
        self._files = list(files)
        self._locations()  # raises if a file can't be read or changed

    def _locations(self) -> dict[str, Location]:
        locations: dict[str, Location] = {}
        for id, document, entry in entries_by_id([self._document(file) for file in self._files]):
            locations.setdefault(id, Location()).entries.append((document, entry))
        return locations

    def _locations_after(self, files: Iterable[Path]) -> dict[str, Location]:
        return self._locations()

    def _change(
        self, location: Location, change: Change, files: dict[Path, bytes], *, sidecars: bool
    ) -> list[Document]:
        if sidecars:
            raise EditError(f"{self._files[0]}: caption files beside images are for folders of images, not data files")
        changed = [] if change.rejected is None else set_rejected(location.entries, change.rejected)
        return changed if change.captions is None else [*changed, *set_captions(location.entries, change.captions)]
