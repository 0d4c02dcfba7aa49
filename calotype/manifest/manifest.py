"""`Manifest`: an immutable sequence of rows over an Arrow table, memory-mapped from disk when it is large."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from calotype.errors import ManifestError
from calotype.ledger import Ledger
from calotype.manifest.cache import UnwritableError, cache_problem, map_arrow, write_arrow
from calotype.types import ImageRef, Row

__all__ = ["EXTRA", "JSON_FIELD", "REMOTE", "Manifest", "image_paths", "set_column"]

EXTRA = "extra:"
"""Prefix of the names of the data file's own columns."""

JSON_FIELD = {b"calotype": b"json"}
"""Metadata of an extra column whose values fit no single Arrow type and are stored as JSON text."""

REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
"""The beginning of a URL."""

_OF_IMAGES: Final = ("ref", "id", "name", "offset", "size", "key")
"""The columns that an `ImageRef` is made of."""
_SPILL_BYTES: Final = 4 << 20
"""Maximum bytes of a manifest in memory. A larger one is written to a file, and its pickle, for workers, is a path."""


class Manifest(Sequence[Row]):
    """Rows by index, in O(1) and from any thread. Holds no pixels. `load_manifest` returns it.

    The Arrow table behind it has these columns:

    ======== ============== =====================================================================
    column   type           meaning
    ======== ============== =====================================================================
    id       large_string   `Row.id`
    ref      large_string   file (relative to `root`, or absolute) or URL; null: the same as `id`
    name     large_string   `ImageRef.name`; null: the same as `ref`
    offset   int64          byte range in the file; null: the whole file
    size     int64
    key      binary         key in the LMDB environment `ref`; null: not LMDB
    captions list of text   `Row.captions`
    width    int32          null: unknown
    height   int32
    weight   float64        how many times an epoch shows the row; null: 1
    extra:…  any            the data file's own columns
    ======== ============== =====================================================================

    Args:
        table: Columns as above.
        root: Folder that relative references are relative to.
        about: Plain values for `describe`.
        ledger: What was left out, with the reasons.
    """

    def __init__(self, table: pa.Table, *, root: Path, about: Mapping[str, Any], ledger: Ledger) -> None:
        header = {"root": str(root), "about": dict(about)}
        table = table.replace_schema_metadata({"calotype": json.dumps(header)})
        self._file: Path | None = None
        self._file_size = 0
        if table.nbytes > _SPILL_BYTES and (file := _spill(table)) is not None:
            self._file, self._file_size = file, file.stat().st_size
            table = map_arrow(file)
        self._adopt(table, ledger)

    def _adopt(self, table: pa.Table, ledger: Ledger) -> None:
        header = json.loads(table.schema.metadata[b"calotype"])
        self._table = table
        self._root = Path(header["root"])
        self._about: dict[str, Any] = header["about"]
        self._ledger = ledger
        # Indexing one plain array is several times faster than indexing a chunked one.
        columns = {name: table[name].chunk(0) if table[name].num_chunks == 1 else table[name] for name in _COLUMNS}
        self._columns = {name: None if pa.types.is_null(column.type) else column for name, column in columns.items()}
        self._extra = [
            (field.name.removeprefix(EXTRA), table[field.name], field.metadata == JSON_FIELD)
            for field in table.schema
            if field.name.startswith(EXTRA)
        ]
        if any("[ns" in str(column.type) for _, column, _ in self._extra):  # times, also within lists and structs
            with suppress(ImportError):
                importlib.import_module("pandas")  # pyarrow makes Python values of nanoseconds with it alone

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Manifest: ...
    def __getitem__(self, index: int | slice) -> Row | Manifest:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        at = int(index)
        if at < 0:
            at += len(self)
        if not 0 <= at < len(self):
            raise IndexError(f"row {index} of a manifest of {len(self)} rows")
        weight = self._value("weight", at)
        return Row(
            id=self._value("id", at),
            image=self._image(at),
            captions=tuple(self._value("captions", at)),
            width=self._value("width", at),
            height=self._value("height", at),
            weight=1.0 if weight is None else weight,
            extra={name: _plain(column[at].as_py(), is_json) for name, column, is_json in self._extra},
        )

    def _value(self, name: str, at: int) -> Any:
        column = self._columns[name]
        return None if column is None else column[at].as_py()

    def _image(self, at: int) -> ImageRef:
        return _image_ref(self._root, *(self._value(name, at) for name in _OF_IMAGES))

    def captions_of(self, index: int) -> tuple[str, ...]:
        """Return the captions of one row, without the rest of it."""
        return tuple(self._value("captions", index))

    def select(self, indices: Iterable[int] | npt.NDArray[np.integer[Any]]) -> Manifest:
        """Return a manifest of the rows at these indices, in this order.

        Raises:
            IndexError: An index is out of range.
        """
        chosen = indices if isinstance(indices, np.ndarray) else np.fromiter(indices, dtype=np.int64)
        if len(chosen) and not (-len(self) <= chosen.min() and chosen.max() < len(self)):
            raise IndexError(f"select: indices must lie in a manifest of {len(self)} rows")
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        return Manifest(self._table.take(pa.array(chosen)), root=self._root, about=self._about, ledger=self._ledger)

    def refs(self, indices: Iterable[int] | None = None) -> list[ImageRef]:
        """Return the images of these rows (by default of all), without the rest of each row."""
        if indices is not None:
            return [self._image(int(at)) for at in indices]
        columns = [self._columns[name] for name in _OF_IMAGES]
        values = (repeat(None, len(self)) if column is None else column.to_pylist() for column in columns)
        return [_image_ref(self._root, *row) for row in zip(*values, strict=True)]

    def sizes(self) -> npt.NDArray[np.int32]:
        """Return (N, 2) int32 of (height, width) in pixels, from the data file; 0: unknown."""
        sizes = np.zeros((len(self), 2), dtype=np.int32)
        for axis, name in enumerate(("height", "width")):
            if self._columns[name] is not None:
                sizes[:, axis] = pc.fill_null(self._table[name], 0).to_numpy()
        return sizes

    def weights(self) -> npt.NDArray[np.float64]:
        """Return (N,) float64: how many times an epoch shows each row."""
        if self._columns["weight"] is None:
            return np.ones(len(self))
        return np.array(pc.fill_null(self._table["weight"], 1.0).to_numpy(), dtype=np.float64)

    @property
    def ids(self) -> pa.ChunkedArray:
        """The ids of all rows, without constructing rows."""
        return self._table["id"]

    @property
    def captions(self) -> pa.ChunkedArray:
        """The captions of all rows, one list of texts per row, without constructing rows."""
        return self._table["captions"]

    @cached_property
    def has_urls(self) -> bool:
        """Whether any image is fetched by URL."""
        return bool(pc.any(pc.match_substring_regex(image_paths(self._table), REMOTE.pattern)).as_py())

    @property
    def extras(self) -> pa.Table:
        """The data file's own columns, by their own names; metadata `JSON_FIELD` marks values stored as JSON text."""
        fields = [field for field in self._table.schema if field.name.startswith(EXTRA)]
        bare = [field.with_name(field.name.removeprefix(EXTRA)) for field in fields]
        return pa.table([self._table[field.name] for field in fields], schema=pa.schema(bare))

    @property
    def root(self) -> Path:
        """The folder that ids and relative references are relative to."""
        return self._root

    @property
    def ledger(self) -> Ledger:
        """What was left out, with the reasons."""
        return self._ledger

    def describe(self) -> dict[str, Any]:
        """Return counts and facts as plain values, for printing."""
        counts = pc.list_value_length(self._table["captions"]).to_numpy() if len(self) else np.zeros(0)
        total = int(counts.sum())
        empty = self._columns["captions"]
        blank = 0 if empty is None else int(pc.sum(pc.equal(pc.binary_length(pc.list_flatten(empty)), 0)).as_py() or 0)
        return {
            "rows": len(self),
            "captions": total - blank,
            "several_captions": int((counts > 1).sum()),
            "without_caption": blank,
            "sizes_known": int(self.sizes().all(axis=1).sum()),
            "shown_per_epoch": float(self.weights().sum()),
            "root": str(self._root),
            **self._about,
            "notes": [*self._about.get("notes", ()), *filter(None, [cache_problem()])],
            "left_out": self._ledger.counts(),
        }

    def __repr__(self) -> str:
        return f"Manifest({len(self)} rows of {self._about.get('format', '?')} in {self._root})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._file is not None:
            return _reopen, (str(self._file), self._file_size, self._ledger)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, self._table.schema) as writer:
            writer.write_table(self._table)
        return _restore, (sink.getvalue().to_pybytes(), self._ledger)


def image_paths(table: pa.Table) -> pa.ChunkedArray:
    """Return the references of a manifest's table, whatever the ids are."""
    refs = table["ref"]
    return table["id"] if pa.types.is_null(refs.type) else pc.coalesce(refs, table["id"])


def set_column(table: pa.Table, name: str, values: pa.Array, metadata: Mapping[bytes, bytes] | None = None) -> pa.Table:
    """Return the table with other values in one of its columns."""
    index = table.column_names.index(name)
    return table.set_column(index, pa.field(name, values.type, metadata=metadata), values)


_COLUMNS = ("id", "ref", "name", "offset", "size", "key", "captions", "width", "height", "weight")


def _image_ref(
    root: Path, ref: str | None, id: str, name: str | None, offset: int | None, size: int | None, key: bytes | None
) -> ImageRef:
    ref = id if ref is None else ref
    if REMOTE.match(ref):
        return ImageRef(name=name or ref, url=ref)
    return ImageRef(name=name or ref, path=_joined(root, ref), offset=offset or 0, size=size, key=key)


def _joined(root: Path, ref: str) -> str:
    """Return `str(root / ref)`, without a `Path` for each of 100,000 images."""
    plain = os.sep == "/" and ref and ref[0] not in "./" and ref[-1] != "/" and "//" not in ref and "/." not in ref
    return f"{root}/{ref}" if plain and root.name else str(root / ref)


def _plain(value: Any, is_json: bool) -> Any:
    return json.loads(value) if is_json and value is not None else value


def _spill(table: pa.Table) -> Path | None:
    """Write the table to the cache, named by the hash of its content; None if it can't be written anywhere."""
    try:
        return write_arrow("manifests", lambda: (table.schema, table.to_batches()))
    except UnwritableError:
        return None


def _reopen(file: str, size: int, ledger: Ledger) -> Manifest:
    manifest = Manifest.__new__(Manifest)
    manifest._file, manifest._file_size = Path(file), size
    try:
        found = manifest._file.stat().st_size
        if found != size:
            raise pa.ArrowInvalid(f"it has {found} of its {size} bytes")
        table = map_arrow(manifest._file)
    except FileNotFoundError:
        raise ManifestError(
            f"the manifest's file {file} is gone (was the cache emptied?): load the manifest again"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ManifestError(f"the manifest's file {file} is damaged ({error}): load the manifest again") from None
    manifest._adopt(table, ledger)
    return manifest


def _restore(data: bytes, ledger: Ledger) -> Manifest:
    manifest = Manifest.__new__(Manifest)
    manifest._file = None
    manifest._adopt(pa.ipc.open_file(pa.BufferReader(data)).read_all(), ledger)
    return manifest
