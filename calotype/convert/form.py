"""`Form`: the protocol of an output form, and the values passed to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from calotype.convert.names import file_names, references
from calotype.manifest.manifest import Manifest
from calotype.types import ImageRef, Row

if TYPE_CHECKING:
    import pyarrow as pa

    from calotype.convert.columns import Columns

__all__ = ["MEMBER", "Finding", "Form", "Images", "Record", "Target", "column_note"]

Images = Literal["copy", "link", "embed", "refer"]
"""How images are stored in the result: as copied files, as links to the source's files, inside the data files, or
not at all (the data file refers to them)."""


MEMBER = "\0image"
"""The image column of archives, whose images have names of their own; no real column has this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A note or error that is reported before anything is written."""

    level: Literal["error", "note"]
    """`error`: captions would change, which needs `lossy=True`."""
    kind: str
    """A short identifier: `captions_changed`, `renamed_columns`, `texts_only`, …"""
    count: int
    text: str
    """The message."""


def column_note(kind: str, columns: Sequence[str], text: str) -> Iterator[Finding]:
    """Yield a note about columns; none without any.

    Args:
        kind: See `Finding`.
        columns: Names of the columns.
        text: The message, with `{}` for the names.
    """
    if columns:
        names = ", ".join(map(repr, columns))
        yield Finding(level="note", kind=kind, count=len(columns), text=text.format(names))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Description of the result, passed to a form."""

    images: Images
    folder: Path
    """Final folder of the data files; relative references start here."""
    title: str
    """Name of the dataset: the trigger, or the source's name."""
    columns: Columns
    extras: pa.Table
    """Further columns of the source, a row for each image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One image to write."""

    index: int
    """Index of the row in the source."""
    row: Row
    """The row as the result must be read, with its final captions."""
    name: str
    """Name in the result; with images `refer`, the reference to the image."""
    data: bytes | None = field(default=None, repr=False)
    """The encoded image; None where it is linked or referred to."""

    @property
    def source(self) -> ImageRef:
        return self.row.image


class Form(Protocol):
    """An output form. `load_manifest` reads the rows back from its result.

    A result is written in parts, each a range of rows. A finished part is never changed; an unfinished one is written
    again. `finish` is called last, and again if a run was interrupted in it.

    The defaults suit most forms; derive from this class to use them.
    """

    name: str
    images: tuple[Images, ...]
    """Supported ways to store images, the default first."""
    shards: bool = False
    """Whether each part is one file of up to `shard_size` bytes."""
    table: str | None = None
    """Name of the data file, for forms with one file beside the images."""

    def column_names(self, images: Images, captions: int) -> tuple[str, tuple[str, ...]]:
        """Return the name of the image column, and of the columns for up to `captions` captions of an image."""
        ...

    def names(self, rows: Iterable[Row], images: Images, folder: Path, title: str) -> Iterator[str]:
        """Yield the images' names in the rows' order. A missing suffix is added when the image is read."""
        return references(rows, folder) if images == "refer" else file_names(rows)

    def caption(self, text: str) -> str:
        """Return a caption as the form can hold it."""
        return text

    def column(self, name: str) -> str:
        """Return a column's name as the form can hold it."""
        return name

    def extra(self, value: Any) -> Any:
        """Return a value of a further column as it is read back."""
        return value

    def findings(self, manifest: Manifest, names: Sequence[str], captions: int) -> Iterator[Finding]:
        """Yield what else this form can't hold, or other tools don't read."""
        return iter(())

    def write_part(self, target: Target, folder: Path, part: int, records: Iterator[Record]) -> None:
        """Write the records of one part into `folder`."""
        ...

    def files(self, target: Target, part: int, names: Sequence[str]) -> Iterable[str]:
        """Return the files of a part, relative to the result."""
        ...

    def read_part(self, target: Target, folder: Path, part: int, names: Sequence[str]) -> Iterator[bytes]:
        """Yield the encoded images of a finished part, in order."""
        ...

    def finish(self, target: Target, folder: Path, parts: int, records: Callable[[], Iterator[Record]]) -> None:
        """Write what concerns all rows; `records()` yields them without data."""
        return

    def reading(self) -> Mapping[str, Any]:
        """Return the options of `load_manifest` that read every row of this form."""
        return {}
