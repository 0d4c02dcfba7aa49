"""Image bytes inside a file: in a column of an Arrow file, or in an archive; each image is a byte range or a key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Embedded", "NotMappedError", "embedded_in", "holds_bytes", "open_mapped", "unpack"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Image bytes of a table's rows: byte ranges of one file, or keys of one LMDB environment."""

    file: Path
    inside: npt.NDArray[np.bool_]
    """(N,): rows that have bytes there; the others have a path or nothing."""
    ids: Any
    """large_string array: ids of the rows if no column has ids."""
    offsets: npt.NDArray[np.int64] | None = None
    sizes: npt.NDArray[np.int64] | None = None
    keys: Any = None
    """Binary array, for LMDB."""


def holds_bytes(type_: pa.DataType) -> bool:
    """Whether a column holds file contents: binary values, or Hugging Face's `Image` struct."""
    if pa.types.is_struct(type_):
        return any(field.name == "bytes" and holds_bytes(field.type) for field in type_)
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_))


def unpack(type_: pa.DataType, columns: Iterable[pa.Array]) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    """Return schema and batches of a cache file with one column of images."""
    schema = pa.schema([("image", type_)])
    return schema, (pa.record_batch([column], schema=schema) for column in columns)


def open_mapped(mapped: pa.MemoryMappedFile) -> pa.Table:
    """Read the table of a mapped Arrow file or stream."""
    magic = mapped.read(6)
    mapped.seek(0)
    return (pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream)(mapped).read_all()


class NotMappedError(Exception):
    """The values of a compressed file are not byte ranges of it."""


def embedded_in(file: Path, column: str, label: str, first: int = 0) -> tuple[Embedded, pa.ChunkedArray]:
    """Find the byte ranges of a column of images in an uncompressed Arrow file, and the paths in that column.

    Args:
        file: The Arrow file or stream.
        column: The image column.
        label: Ids are `label#row`.
        first: Number of the first row.

    Raises:
        NotMappedError: The file is compressed.
    """
    with pa.memory_map(str(file)) as mapped:
        whole = mapped.read_buffer()
        mapped.seek(0)
        chunks = open_mapped(mapped)[column].chunks
        paths = [_bytes_and_paths(chunk)[1] for chunk in chunks]
        ranges = [_ranges(_bytes_and_paths(chunk)[0], whole.address, whole.size) for chunk in chunks]
    offsets = np.concatenate([np.zeros(0, dtype=np.int64), *(offset for offset, _ in ranges)])
    sizes = np.concatenate([np.zeros(0, dtype=np.int64), *(size for _, size in ranges)])
    numbers = pc.cast(pa.array(np.arange(first, first + len(sizes))), pa.large_string())
    ids = pc.binary_join_element_wise(pa.scalar(label, pa.large_string()), numbers, pa.scalar("#", pa.large_string()))
    embedded = Embedded(file=file, inside=sizes >= 0, ids=ids, offsets=offsets, sizes=sizes)
    return embedded, pa.chunked_array(paths, pa.large_string())


def _bytes_and_paths(chunk: pa.Array) -> tuple[pa.Array, pa.Array]:
    if not pa.types.is_struct(chunk.type):
        return chunk, pa.nulls(len(chunk), pa.large_string())
    # `flatten` applies the struct's own nulls and offset; `field` does not.
    fields = dict(zip((field.name for field in chunk.type), chunk.flatten(), strict=True))
    path = fields.get("path")
    return fields["bytes"], pa.nulls(len(chunk), pa.large_string()) if path is None else path.cast(pa.large_string())


def _ranges(values: pa.Array, base: int, total: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return offset and size of each value in the mapped file; a size of -1 is null."""
    _, bounds, data = values.buffers()
    if len(values) == 0 or data is None or data.size == 0:
        return np.zeros(len(values), dtype=np.int64), np.full(len(values), -1, dtype=np.int64)
    start = data.address - base
    if not 0 <= start <= total - data.size:
        raise NotMappedError
    dtype = np.int64 if pa.types.is_large_binary(values.type) else np.int32
    ends = np.frombuffer(bounds, dtype=dtype)[values.offset : values.offset + len(values) + 1].astype(np.int64)
    # An empty value is not an image either.
    sizes = np.diff(ends)
    sizes[(sizes == 0) | ~np.asarray(values.is_valid())] = -1
    return start + ends[:-1], sizes
