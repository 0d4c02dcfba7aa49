"""`Document`: a data file whose captions can be changed while everything else in it stays as it is."""

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """One record of a data file, as the manifest reads it."""

    record: Any
    """Where it is in its document: the document's own business."""
    id: str
    picture: str
    """The reference to its image, as the manifest has it."""
    explicit_id: bool
    captions: tuple[str, ...]
    rejected: bool


class Document(ABC):
    """A data file in memory. What is changed here reaches the disk when someone writes what `render` gives.

    `entries` are those of the file as it was read; after a change, read it anew.
    """

    file: Path
    entries: list[Entry]

    @abstractmethod
    def set_captions(self, records: Sequence[Any], captions: Sequence[str]) -> None:
        """Gives one image new captions.

        Args:
            records: All that the image has in this document.
            captions: None of them blank, none with line breaks at its end.

        Raises:
            EditError: This form of file can't hold them.
        """

    @abstractmethod
    def set_rejected(self, record: Any, rejected: bool) -> None:
        """Marks a record as rejected, or no more so."""

    @abstractmethod
    def add(self, picture: str) -> Any:
        """A new record at the end, for an image named by a reference relative to the file's folder."""

    @abstractmethod
    def render(self) -> bytes:
        """What the file should hold."""


def find_entries(
    table: pa.Table, columns: Columns, records: Sequence[Any], file: Path, reading: Reading, where: Callable[[int], str]
) -> list[Entry]:
    """The rows of a table as the manifest takes them: same ids, same captions. Those it would skip are left out.

    Args:
        table: The file's own columns.
        columns: What they mean.
        records: Of each row of the table.
        file: It came from.
        reading: Lenient: bad rows are skipped.
        where: Row number → `file:line`.
    """
    part = table_part(table, reading, label=str(file), base=file.parent, where=where, columns=columns)
    found = part.table
    pictures = part.paths()
    if not pa.types.is_null(found["name"].type):  # members of an archive: the archive and the member
        pictures = pc.coalesce(found["name"], pictures)
    flags = [False] * len(found) if pa.types.is_null(found["rejected"].type) else found["rejected"].to_pylist()
    return [
        Entry(
            record=records[row],
            id=id,
            picture=picture,
            explicit_id=part.explicit_ids,
            captions=tuple(captions),
            rejected=bool(flag),
        )
        for row, id, picture, captions, flag in zip(
            found["_row"].to_pylist(),
            found["id"].to_pylist(),
            pictures.to_pylist(),
            found["captions"].to_pylist(),
            flags,
            strict=True,
        )
    ]
