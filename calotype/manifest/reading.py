"""`Reading`: the options of one `load_manifest` call. `Part`: the rows that a reader returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from calotype.errors import ManifestError
from calotype.ledger import Ledger
from calotype.manifest.captions import as_texts
from calotype.manifest.exclude import EXCLUDE_NOTHING, Exclude
from calotype.manifest.file_kinds import CAPTION_SUFFIXES
from calotype.manifest.manifest import EXTRA, image_paths, set_column

__all__ = ["MemberKey", "Part", "Reading", "as_extra", "line_finder", "make_part"]

MemberKey = Literal["auto", "first_dot", "last_dot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The options of one `load_manifest` call, and what readers report: notes and ledger entries."""

    root: Path
    """Folder that ids are relative to."""

    common_root: Path
    """The deepest folder that holds all sources; equal to `root` unless the option `root` is set."""

    image_root: Path | None
    """Folder that references of data files are relative to; None: the data file's own folder."""

    columns: Mapping[str, tuple[str, ...] | None]
    """Meaning → columns, from the option `columns`; None: no column has this meaning."""

    need_captions: bool
    """Whether a table without a caption column is an error."""

    recursive: bool
    """Whether folders inside the folder are read too."""

    many_lines: bool | None
    """Whether each line of a caption file is a caption; None: not set, and the whole file is one caption."""

    split: str | None
    """The split to read; None: not set."""

    skip: bool
    """Whether bad rows are entered into the ledger instead of raising an error."""

    ledger: Ledger
    caption_suffixes: tuple[str, ...] = CAPTION_SUFFIXES
    """Suffixes of caption files beside images, in lower case."""

    member_key: MemberKey = "auto"
    """Which members of an archive belong to one sample."""

    delimiter: str | None = None
    """Delimiter of CSV and TSV files; None: detected."""

    exclude: Exclude = EXCLUDE_NOTHING
    """Files and folders that a listing leaves out."""

    keep_rejected: bool = False
    """Whether rows marked as rejected are returned too."""

    notes: list[str] = field(default_factory=list)
    """Sentences for `Manifest.describe`."""

    used: set[str] = field(default_factory=set)
    """Names of the options that had an effect: an option that has none is an error."""

    def bad(self, where: str, reason: str, kind: str = "bad_row") -> None:
        """Report a row that can't be used: raise an error, or with `on_error="skip"` enter it into the ledger.

        Raises:
            ManifestError: `on_error` is "raise".
        """
        if not self.skip:
            raise ManifestError(f"{where}: {reason} (on_error='skip' leaves such rows out and lists them)")
        self.ledger.add(kind, where, reason)

    def note(self, text: str) -> None:
        """Add a sentence for `Manifest.describe`, once."""
        if text not in self.notes:
            self.notes.append(text)

    def lead(self, folder: Path) -> str:
        """Return the prefix of references to files in a folder: its relative path and a slash, or nothing."""
        relative = self.relative(folder)
        return "" if relative == "." else f"{relative}/"

    def relative(self, path: Path) -> str:
        """Return a path in the form of references: relative to the root if it is inside, with forward slashes."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()

    def label(self, file: Path) -> str:
        """Return the name of a data file in ids: never an absolute path, so that a moved dataset keeps its ids."""
        return file.relative_to(self.root if file.is_relative_to(self.root) else self.common_root).as_posix()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows from one file or folder: the columns of `Manifest`; `rejected`, whether the row is rejected; and `_row`,
    its number in its source."""

    table: pa.Table
    where: Callable[[int], str]
    """Row number (`_row`) → `file:line`, for messages."""

    explicit_ids: bool = False
    """Whether ids come from a column, so that two images with one id are an error."""

    def paths(self) -> pa.ChunkedArray:
        """Return the images' references, whatever their ids are."""
        return image_paths(self.table)

    def filter(self, keep: npt.NDArray[np.bool_]) -> Part:
        """Return the part with these rows only."""
        return replace(self, table=self.table.filter(pa.array(keep)))

    def with_column(self, name: str, values: pa.Array) -> Part:
        """Return the part with other values in one column."""
        return replace(self, table=set_column(self.table, name, values))


def as_extra(name: str, values: pa.ChunkedArray | pa.Array) -> tuple[pa.Field, pa.ChunkedArray | pa.Array]:
    """Return one of the data file's own columns, under its name in the manifest."""
    return pa.field(EXTRA + name, values.type), values


def make_part(
    count: int,
    *,
    id: Any,
    captions: Any,
    where: Callable[[int], str],
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
    """Make a part from arrays or lists of `count` values. None: unknown for all rows.

    Args:
        count: Number of rows.
        id: See `Manifest`.
        captions: See `Manifest`.
        where: Row number → `file:line`, for messages.
        extra: The data file's own columns, as `as_extra` returns them.
        explicit_ids: See `Part`.
        ref: See `Manifest`.
        name: See `Manifest`.
        offset: See `Manifest`.
        size: See `Manifest`.
        key: See `Manifest`.
        width: See `Manifest`.
        height: See `Manifest`.
        weight: See `Manifest`.
        rejected: Whether each row is marked as rejected.
    """

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
        "_row": column(np.arange(count), whole),
    }
    fields = [pa.field(label, values.type) for label, values in columns.items()] + [field_ for field_, _ in extra]
    arrays = [*columns.values(), *(values for _, values in extra)]
    return Part(table=pa.table(arrays, schema=pa.schema(fields)), where=where, explicit_ids=explicit_ids)


def line_finder(file: Path, first: int = 0) -> Callable[[int], str]:
    """Return a function from row number to `file:line`. Blank lines are not rows.

    The file is read on the first call, since most files have no row to report.

    Args:
        file: A text file with a row in each line that is not blank.
        first: Number of such lines before the first row.
    """
    numbers: list[int] = []

    def where(row: int) -> str:
        if not numbers:
            with file.open("rb") as lines:
                numbers.extend(number for number, line in enumerate(lines, 1) if line.strip())
        return f"{file}:{numbers[first + row]}"

    return where
