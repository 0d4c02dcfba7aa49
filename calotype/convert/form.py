"""What an output form is: one protocol, and the plain values that it is given."""

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

__all__ = ["MEMBER", "Finding", "Form", "Images", "Record", "Target"]

Images = Literal["copy", "link", "embed", "refer"]
"""How the images get into the result: as files of their own, as links to the old ones, inside its data files, or
not at all (the data file says where they are)."""


MEMBER = "\0image"
"""The image column of forms in which an image has a name of its own; no column can be called so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is to be known before anything is written."""

    level: Literal["error", "note"]
    """`error`: captions would change; only written when the caller says that it may lose something."""
    kind: str
    """A short word: `captions_changed`, `renamed_columns`, `texts_only`, …"""
    count: int
    text: str
    """A sentence for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a form is told of the result that is to be."""

    images: Images
    folder: Path
    """Where the data files will lie: what relative references are relative to."""
    title: str
    """A word for the whole: the trigger, or the source's name."""
    columns: Columns
    extras: pa.Table
    """The data's own columns as the source has them, a row an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One image on its way out."""

    index: int
    """Of the row in the source."""
    row: Row
    """As the result must be read: with the captions that it gets."""
    name: str
    """What it is called in the result; the reference to it where it stays where it is."""
    data: bytes | None = field(default=None, repr=False)
    """The file's bytes; None where they are not moved."""

    @property
    def source(self) -> ImageRef:
        return self.row.image


class Form(Protocol):
    """An output form. Its result, read by `load_manifest`, gives the rows that went in.

    A result is made in parts, each a run of rows; what is in a finished part is never touched again, and a part that
    was not finished is written anew. `finish` comes last, and may come twice.

    What most forms do alike is done here, for those that derive from it.
    """

    name: str
    images: tuple[Images, ...]
    """What it can do with images; the first is what it does unasked."""
    shards: bool = False
    """Whether a part is a file of up to `shard_size` bytes."""
    table: str | None = None
    """Name of its data file, where it is one file beside the images."""

    def column_names(self, images: Images, captions: int) -> tuple[str, tuple[str, ...]]:
        """What the result calls the image column, and those of up to `captions` captions an image."""
        ...

    def names(self, rows: Iterable[Row], images: Images, folder: Path, title: str) -> Iterator[str]:
        """What the images are called in the result, in the rows' order. One without a suffix gets its own later."""
        return references(rows, folder) if images == "refer" else file_names(rows)

    def caption(self, text: str) -> str:
        """The text as the form can hold it."""
        return text

    def column(self, name: str) -> str:
        """A column's name as the form can hold it."""
        return name

    def extra(self, value: Any) -> Any:
        """What a value of one of the data's own columns comes back as."""
        return value

    def findings(self, manifest: Manifest, names: Sequence[str], captions: int) -> Iterator[Finding]:
        """What else this form can't hold, or other programs won't read."""
        return iter(())

    def write_part(self, target: Target, folder: Path, part: int, records: Iterator[Record]) -> None: ...

    def files(self, target: Target, part: int, names: Sequence[str]) -> Iterable[str]:
        """The files that a part consists of, relative to the result."""
        ...

    def read_part(self, target: Target, folder: Path, part: int, names: Sequence[str]) -> Iterator[bytes]:
        """The images' bytes as the finished part has them, in order."""
        ...

    def finish(self, target: Target, folder: Path, parts: int, records: Callable[[], Iterator[Record]]) -> None:
        """Writes what is about all rows; `records` gives them, without data."""
        return

    def reading(self) -> Mapping[str, Any]:
        """Options of `load_manifest` that this form needs to be read whole."""
        return {}
