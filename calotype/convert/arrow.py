"""Rows as Arrow record batches, for Parquet files and Hugging Face's saved datasets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from calotype.convert.form import Record, Target
from calotype.convert.jsonl import to_json
from calotype.manifest.manifest import JSON_FIELD

__all__ = ["batches", "bytes_in", "schema"]

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Storage type of `datasets.Image`."""
_BATCH_BYTES = 32 << 20
_BATCH_ROWS = 1000


def schema(target: Target) -> pa.Schema:
    """Return the schema; its metadata marks the image column for `datasets`."""
    columns = target.columns
    embed = target.images == "embed"
    text = pa.large_string()
    fields = [pa.field(columns.image, _IMAGE if embed else text)]
    fields += [pa.field(name, pa.list_(text) if columns.several else text) for name in columns.captions]
    fields += [pa.field("id", text)] if columns.ids else []
    fields += [pa.field("width", pa.int32()), pa.field("height", pa.int32())] if columns.sizes else []
    fields += [pa.field("weight", pa.float64())] if columns.weights else []
    fields += [_extra_field(target.extras.schema.field(old), new) for old, new in columns.extras.items()]
    about = {"info": {"features": {columns.image: {"_type": "Image"}}}}
    return pa.schema(fields, metadata={"huggingface": json.dumps(about)} if embed else None)


def _extra_field(field: pa.Field, name: str) -> pa.Field:
    if field.metadata == JSON_FIELD or not _storable(field.type):
        return pa.field(name, pa.large_string(), metadata=JSON_FIELD)
    return pa.field(name, field.type)


def _storable(type_: pa.DataType) -> bool:
    try:
        pq.write_table(pa.schema([("a", type_)]).empty_table(), pa.BufferOutputStream())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False
    return True


def batches(target: Target, records: Iterable[Record]) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches of about 32 MB."""
    shape = schema(target)
    pending: list[Record] = []
    size = 0
    for record in records:
        pending.append(record)
        size += len(record.data or b"")
        if size >= _BATCH_BYTES or len(pending) >= _BATCH_ROWS:
            yield _batch(target, shape, pending)
            pending, size = [], 0
    if pending:
        yield _batch(target, shape, pending)


def _batch(target: Target, shape: pa.Schema, records: list[Record]) -> pa.RecordBatch:
    columns = target.columns
    rows = [columns.values(record.row) for record in records]
    indices = pa.array([record.index for record in records], pa.int64())
    arrays: list[pa.Array] = []
    source_names = {new: old for old, new in columns.extras.items()}
    for field in shape:
        if field.name == columns.image and target.images == "embed":
            contents = pa.array([record.data for record in records], pa.binary())
            paths = pa.array([record.name for record in records], pa.string())
            arrays.append(pa.StructArray.from_arrays([contents, paths], fields=list(_IMAGE)))
        elif field.name == columns.image:
            arrays.append(pa.array([record.name for record in records], field.type))
        elif field.name in source_names and field.metadata == JSON_FIELD:
            values = [row[field.name] for row in rows]
            arrays.append(pa.array([None if value is None else to_json(value) for value in values], field.type))
        elif field.name in source_names:
            taken = target.extras[source_names[field.name]].take(indices)
            arrays.append(pa.concat_arrays(taken.chunks) if taken.num_chunks != 1 else taken.chunk(0))
        else:
            arrays.append(pa.array([row[field.name] for row in rows], field.type))
    return pa.record_batch(arrays, schema=shape)


def bytes_in(column: pa.Array) -> Iterator[bytes]:
    """Yield the encoded images of an image column."""
    for value in column.field("bytes"):
        yield value.as_py()
