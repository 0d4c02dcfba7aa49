"""Reads Parquet and Arrow files; image bytes in a column become byte ranges of an uncompressed Arrow file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from calotype.errors import CalotypeError, ManifestError
from calotype.manifest.cache import cached
from calotype.manifest.reading import Part, Reading
from calotype.manifest.tables.columns import find_columns
from calotype.manifest.tables.embedded import (
    NotMappedError,
    embedded_in,
    holds_bytes,
    open_mapped,
    unpack,
)
from calotype.manifest.tables.rows import table_part

__all__ = ["parse_errors", "read_arrow", "read_parquet"]


def read_parquet(file: Path, reading: Reading) -> Part:
    """Read a `.parquet` file. Image bytes are unpacked once into the cache."""
    with parse_errors(file, "a Parquet file"), pq.ParquetFile(file, memory_map=True) as opened:
        schema = opened.schema_arrow
        columns = find_columns(schema.names, reading.columns, str(file))
        image = columns.image
        wanted = [name for name in schema.names if not holds_bytes(schema.field(name).type)]
        if not holds_bytes(schema.field(image).type):
            raw = opened.read(columns=wanted)
            embedded = None
        else:
            rest = opened.read(columns=wanted)
            unpacked = cached("images", [file], lambda: _image_batches(opened, image), note=image)
            embedded, paths = embedded_in(unpacked, "image", reading.label(file))
            raw = rest.append_column(image, paths)
        raw.validate(full=True)
        for name in schema.names:
            if name not in wanted and name != image:
                reading.note(f"column {name!r} holds binary data and is not read")
    return table_part(raw, file, reading, columns, lambda row: f"{file} row {row}", embedded=embedded)


def _image_batches(opened: pq.ParquetFile, image: str) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    type_ = opened.schema_arrow.field(image).type
    batches = (batch.column(0) for batch in opened.iter_batches(batch_size=256, columns=[image]))
    return unpack(type_, batches)


def read_arrow(file: Path, reading: Reading) -> Part:
    """Read an `.arrow` or `.feather` file or an Arrow stream (as `datasets` writes) by mapping it."""
    raw = _map(file)
    columns = find_columns(raw.column_names, reading.columns, str(file))
    embedded = None
    with parse_errors(file, "an Arrow file or stream"):
        type_ = raw.schema.field(columns.image).type
        if holds_bytes(type_):
            try:
                embedded, paths = embedded_in(file, columns.image, reading.label(file))
            except NotMappedError:  # compressed: the images are not byte ranges of the file
                chunks = raw[columns.image].chunks
                unpacked = cached("images", [file], lambda: unpack(type_, chunks), note=columns.image)
                embedded, paths = embedded_in(unpacked, "image", reading.label(file))
            raw = raw.set_column(raw.column_names.index(columns.image), columns.image, paths)
    return table_part(raw, file, reading, columns, lambda row: f"{file} row {row}", embedded=embedded)


def _map(file: Path) -> pa.Table:
    """Map an Arrow file or stream, and validate its offsets, lengths and texts: Arrow does not check them."""
    with parse_errors(file, "an Arrow file or stream"), pa.memory_map(str(file)) as mapped:
        table = open_mapped(mapped)
        table.validate(full=True)
        return table


@contextmanager
def parse_errors(path: Path, what: str) -> Iterator[None]:
    """Raise a parser's errors as `ManifestError`.

    Args:
        path: The file, for messages.
        what: The expected format: "a Parquet file".
    """
    try:
        yield
    except CalotypeError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ManifestError(f"{path}: can't be read: {error.strerror}") from None
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ManifestError(f"{path}: damaged, or not {what}: {reason}; copy or write it again") from None
