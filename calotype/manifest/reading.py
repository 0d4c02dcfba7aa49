"""What every reader is told, and what it gives back: options, and a part of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calotype.errors import ManifestError
from calotype.ledger import Ledger
from calotype.manifest.captions import as_texts
from calotype.manifest.exclude import EXCLUDE_NOTHING, Exclude
from calotype.manifest.file_kinds import CAPTION_SUFFIXES
from calotype.manifest.manifest import EXTRA

__all__ = ["MemberKey", "Part", "Reading", "as_extra", "line_finder", "make_part"]

MemberKey = Literal["auto", "first_dot", "last_dot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The options of one `load_manifest` call that readers need."""

    root: Path
    """Ids are relative to it."""

    home: Path
    """The deepest folder that holds all that is read; the same as `root` unless the user gave another."""

    image_root: Path | None
    """Relative references of data files are relative to it; None: each data file's own folder."""

    columns: Mapping[str, tuple[str, ...] | None]
    need_captions: bool
    """Whether a table without a caption column is an error."""

    recursive: bool
    many_lines: bool | None
    """Whether each line of a caption file is a caption; None: nobody said, and the whole file is one."""

    split: str | None
    skip: bool
    """Bad rows go to the ledger instead of stopping everything."""

    ledger: Ledger
    caption_suffixes: tuple[str, ...] = CAPTION_SUFFIXES
    """Of caption files beside images, in lower case."""

    member_key: MemberKey = "auto"
    """Which members of an archive are one sample."""
    delimiter: str | None = None
    """Of CSV and TSV; None: what the file's first lines show."""
    exclude: Exclude = EXCLUDE_NOTHING
    """What a folder's listing leaves out."""

    keep_rejected: bool = False
    """Rows that somebody left out come all the same."""

    notes: list[str] = field(default_factory=list)
    """Sentences for `Manifest.describe`."""

    used: set[str] = field(default_factory=set)
    """Options that concern one form of data and met it."""

    def bad(self, where: str, reason: str, kind: str = "bad_row") -> None:
        """A row that can't be used: an error, or a ledger entry with `on_error="skip"`."""
        if not self.skip:
            raise ManifestError(f"{where}: {reason} (on_error='skip' leaves such rows out and lists them)")
        self.ledger.add(kind, where, reason)

    def note(self, text: str) -> None:
        """A sentence for `Manifest.describe`; several files may say the same."""
        if text not in self.notes:
            self.notes.append(text)

    def relative(self, path: Path) -> str:
        """The path as references have it: relative to the root where it lies in it, with forward slashes."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()

    def label(self, file: Path) -> str:
        """What ids call a data file or archive: never an absolute path, so that a move changes nothing."""
        return file.relative_to(self.root if file.is_relative_to(self.root) else self.home).as_posix()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows from one file or folder: the columns of `Manifest`; `rejected`, whether someone left the row out; and
    `_row`, its number in its source."""

    table: pa.Table
    where: Callable[[int], str]
    """Row number → `file:line`, for messages."""

    explicit_ids: bool = False
    """Ids came from a column, so two images that share one are a mistake."""

    def paths(self) -> pa.ChunkedArray:
        """The images, whatever their ids are."""
        refs = self.table["ref"]
        return self.table["id"] if pa.types.is_null(refs.type) else pc.coalesce(refs, self.table["id"])


def as_extra(name: str, values: pa.ChunkedArray | pa.Array) -> tuple[pa.Field, pa.ChunkedArray | pa.Array]:
    """One of the data file's own columns, under the name it has in the manifest."""
    return pa.field(EXTRA + name, values.type), values


def make_part(
    count: int,
    *,
    id: Any,
    captions: Any,
    where: Callable[[int], str],
    rows: Any = None,
    extra: Sequence[tuple[pa.Field, Any]] = (),
    explicit_ids: bool = False,
    ref: Any = None,
    name: Any = None,
    offset: Any = None,
    size: Any = None,
    key: Any = None,
    width: Any = None,
    height: Any = None,
    weight: Any = None,
    rejected: Any = None,
) -> Part:
    """A part from arrays or lists of `count` values; what is None is unknown for all of them."""

    def column(values: Any, type_: pa.DataType) -> Any:
        if values is None:
            return pa.nulls(count)
        return values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, type_)

    text, whole = pa.large_string(), pa.int64()
    columns = {
        "id": as_texts(column(id, text)),
        "ref": column(ref, text),
        "name": column(name, text),
        "offset": column(offset, whole),
        "size": column(size, whole),
        "key": column(key, pa.binary()),
        "captions": column(captions, pa.list_(text)),
        "width": column(width, pa.int32()),
        "height": column(height, pa.int32()),
        "weight": column(weight, pa.float64()),
        "rejected": column(rejected, pa.bool_()),
        "_row": column(np.arange(count) if rows is None else rows, whole),
    }
    fields = [pa.field(label, values.type) for label, values in columns.items()] + [field_ for field_, _ in extra]
    arrays = [*columns.values(), *(values for _, values in extra)]
    return Part(table=pa.table(arrays, schema=pa.schema(fields)), where=where, explicit_ids=explicit_ids)


def line_finder(file: Path, first: int = 0) -> Callable[[int], str]:
    """Row number → `file:line`. Lines of white space only are no rows; rows begin after `first` lines that are not.

    The file is looked through at the first call only: most files are never asked.
    """
    numbers: list[int] = []

    def where(row: int) -> str:
        if not numbers:
            with file.open("rb") as lines:
                numbers.extend(number for number, line in enumerate(lines, 1) if line.strip())
        return f"{file}:{numbers[first + row]}"

    return where
