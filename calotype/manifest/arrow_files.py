"""Parquet and Arrow files; image bytes in a column become byte ranges of an uncompressed Arrow file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from calotype.errors import CalotypeError, ManifestError
from calotype.manifest.cache import cached
from calotype.manifest.columns import Columns, find_columns
from calotype.manifest.reading import Part, Reading
from calotype.manifest.tables import Embedded, holds_bytes, table_part

__all__ = ["NotMappedError", "embedded_in", "naming_damage", "read_arrow", "read_parquet", "unpack"]


def read_parquet(file: Path, reading: Reading) -> Part:
    """A `.parquet` file. Image bytes are unpacked once into the cache; the other columns are read as they are."""
    with naming_damage(file, "a Parquet file"), pq.ParquetFile(file, memory_map=True) as opened:
        schema = opened.schema_arrow
        columns = find_columns(schema.names, reading.columns, str(file))
        image = columns.image
        wanted = [name for name in schema.names if not holds_bytes(schema.field(name).type)]
        if not holds_bytes(schema.field(image).type):
            raw = opened.read(columns=wanted)
            embedded = None
        else:
            rest = opened.read(columns=wanted)
            holder = cached("images", [file], lambda: _image_batches(opened, image), note=image)
            embedded, paths = embedded_in(holder, "image", reading.label(file))
            raw = rest.append_column(image, paths)
        raw.validate(full=True)
        for name in schema.names:
            if name not in wanted and name != image:
                reading.note(f"column {name!r} holds binary data and is not kept")
    return _part(raw, file, reading, columns, embedded)


def _image_batches(opened: pq.ParquetFile, image: str) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    type_ = opened.schema_arrow.field(image).type
    batches = (batch.column(0) for batch in opened.iter_batches(batch_size=256, columns=[image]))
    return unpack(type_, batches)


def unpack(type_: pa.DataType, columns: Iterable[pa.Array]) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    """Schema and batches of a cache file that holds one column of images."""
    schema = pa.schema([("image", type_)])
    return schema, (pa.record_batch([column], schema=schema) for column in columns)


def read_arrow(file: Path, reading: Reading) -> Part:
    """An `.arrow` or `.feather` file, or an Arrow stream (what Hugging Face `datasets` writes), mapped."""
    raw = map_any(file)
    columns = find_columns(raw.column_names, reading.columns, str(file))
    embedded = None
    with naming_damage(file, "an Arrow file or stream"):
        type_ = raw.schema.field(columns.image).type
        if holds_bytes(type_):
            try:
                embedded, paths = embedded_in(file, columns.image, reading.label(file))
            except NotMappedError:  # compressed: its bytes are nowhere in the file as they are
                chunks = raw[columns.image].chunks
                holder = cached("images", [file], lambda: unpack(type_, chunks), note=columns.image)
                embedded, paths = embedded_in(holder, "image", reading.label(file))
            raw = raw.set_column(raw.column_names.index(columns.image), columns.image, paths)
    return _part(raw, file, reading, columns, embedded)


def map_any(file: Path) -> pa.Table:
    """The table of an Arrow file or stream, mapped. Its offsets, lengths and texts are right: Arrow trusts them."""
    with naming_damage(file, "an Arrow file or stream"), pa.memory_map(str(file)) as mapped:
        table = _open(mapped)
        table.validate(full=True)
        return table


def _open(mapped: pa.MemoryMappedFile) -> pa.Table:
    magic = mapped.read(6)
    mapped.seek(0)
    return (pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream)(mapped).read_all()


@contextmanager
def naming_damage(place: Path, what: str) -> Iterator[None]:
    """Errors of whatever parses a file, as ours.

    Raises:
        ManifestError: Names the place.
    """
    try:
        yield
    except CalotypeError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ManifestError(f"{place}: can't be read: {error.strerror}") from None
        said = " ".join(str(error).split())[:200]
        raise ManifestError(f"{place}: damaged, or not {what}: {said}; copy or write it again") from None


_HASH = pa.scalar("#", pa.large_string())


class NotMappedError(Exception):
    """A value's bytes are not part of the mapped file."""


def embedded_in(file: Path, column: str, label: str, first: int = 0) -> tuple[Embedded, pa.ChunkedArray]:
    """Where the values of a column of images lie in an uncompressed Arrow file, and the paths that go with them.

    Rows without an id of their own are called `label#row`, counted from `first`.

    Raises:
        NotMappedError: The file is compressed.
    """
    with pa.memory_map(str(file)) as mapped:
        whole = mapped.read_buffer()
        mapped.seek(0)
        chunks = _open(mapped)[column].chunks
        paths = [_bytes_and_paths(chunk)[1] for chunk in chunks]
        ranges = [_ranges(_bytes_and_paths(chunk)[0], whole.address, whole.size) for chunk in chunks]
    offsets = np.concatenate([np.zeros(0, dtype=np.int64), *(offset for offset, _ in ranges)])
    sizes = np.concatenate([np.zeros(0, dtype=np.int64), *(size for _, size in ranges)])
    numbers = pc.cast(pa.array(np.arange(first, first + len(sizes))), pa.large_string())
    ids = pc.binary_join_element_wise(pa.scalar(label, pa.large_string()), numbers, _HASH)
    embedded = Embedded(file=file, inside=sizes >= 0, ids=ids, offsets=offsets, sizes=sizes)
    return embedded, pa.chunked_array(paths, pa.large_string())


def _bytes_and_paths(chunk: pa.Array) -> tuple[pa.Array, pa.Array]:
    if not pa.types.is_struct(chunk.type):
        return chunk, pa.nulls(len(chunk), pa.large_string())
    # `flatten` takes the struct's own nulls and offset into account; `field` does not.
    fields = dict(zip((field.name for field in chunk.type), chunk.flatten(), strict=True))
    path = fields.get("path")
    return fields["bytes"], pa.nulls(len(chunk), pa.large_string()) if path is None else path.cast(pa.large_string())


def _ranges(values: pa.Array, base: int, total: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Offset and size in the mapped file of each value; size -1 for null."""
    _, bounds, data = values.buffers()
    if len(values) == 0 or data is None or data.size == 0:
        return np.zeros(len(values), dtype=np.int64), np.full(len(values), -1, dtype=np.int64)
    start = data.address - base
    if not 0 <= start <= total - data.size:
        raise NotMappedError
    kind = np.int64 if pa.types.is_large_binary(values.type) else np.int32
    ends = np.frombuffer(bounds, dtype=kind)[values.offset : values.offset + len(values) + 1].astype(np.int64)
    # A value of no bytes is as good as null: there is no image in it.
    sizes = np.diff(ends)
    sizes[(sizes == 0) | ~np.asarray(values.is_valid())] = -1
    return start + ends[:-1], sizes


def _part(raw: pa.Table, file: Path, reading: Reading, columns: Columns, embedded: Embedded | None) -> Part:
    return table_part(
        raw,
        reading,
        label=str(file),
        base=file.parent,
        where=lambda row: f"{file} row {row}",
        embedded=embedded,
        columns=columns,
    )
