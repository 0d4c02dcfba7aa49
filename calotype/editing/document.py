"""`Document`: a data file whose captions can be changed while the rest of it stays as it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from calotype.manifest.reading import Reading
from calotype.manifest.tables.columns import Columns
from calotype.manifest.tables.rows import table_part

__all__ = ["Document", "Entry", "find_entries"]


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One record of a data file, as the manifest reads it."""

    record: Any
    """The record in its document; opaque to others."""
    id: str
    image: str
    """The reference to its image, as in the manifest."""
    explicit_id: bool
    """Whether the id comes from a column."""
    captions: tuple[str, ...]
    rejected: bool


class Document(ABC):
    """A data file in memory. The caller writes what `render` returns.

    `entries` are those of the file as it was read; after a change, call `settle`, or open it again.
    """

    file: Path
    entries: list[Entry]
    settled: int = 0
    """How often an entry has got its first captions, or lost its last ones, since the file was read."""

    @abstractmethod
    def set_captions(self, records: Sequence[Any], captions: Sequence[str]) -> None:
        """Set the captions of one image.

        Args:
            records: All records of the image in this document.
            captions: The captions; none is blank or ends with a line break.

        Raises:
            EditError: This form of file can't hold them.
        """

    @abstractmethod
    def set_rejected(self, record: Any, rejected: bool) -> None:
        """Mark a record as rejected, or remove the mark."""

    @abstractmethod
    def add(self, image: str) -> Any:
        """Append a record for an image, named by a reference relative to the file's folder, and return it."""

    @abstractmethod
    def render(self) -> bytes:
        """Return the new contents of the file."""

    def settle(self) -> bool:
        """Bring `entries` up to date, after what was rendered has been written. False: the file must be read again."""
        return False


def find_entries(
    table: pa.Table, columns: Columns, records: Sequence[Any], file: Path, reading: Reading, where: Callable[[int], str]
) -> list[Entry]:
    """Make entries of a table's rows, with the manifest's ids and captions. Rows that it would skip are left out.

    Args:
        table: The file's own columns.
        columns: Which column has which meaning.
        records: The record of each row.
        file: The file.
        reading: The options; bad rows are skipped.
        where: Row number → `file:line`.
    """
    part = table_part(table, file, reading, columns, where)
    found = part.table
    images = part.paths()
    if not pa.types.is_null(found["name"].type):  # of a member of an archive: the archive and the member
        images = pc.coalesce(found["name"], images)
    flags = [False] * len(found) if pa.types.is_null(found["rejected"].type) else found["rejected"].to_pylist()
    return [
        Entry(
            record=records[row],
            id=id,
            image=image,
            explicit_id=part.explicit_ids,
            captions=tuple(captions),
            rejected=bool(flag),
        )
        for row, id, image, captions, flag in zip(
            found["_row"].to_pylist(),
            found["id"].to_pylist(),
            images.to_pylist(),
            found["captions"].to_pylist(),
            flags,
            strict=True,
        )
    ]
