"""Export: copy records into another store, or each into a safetensors file of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from calotype.core.atomic import replace_file
from calotype.encodings.store.encoding_store import EncodingStore
from calotype.encodings.store.files import cannot_write
from calotype.encodings.store.layout import Field, as_bytes
from calotype.encodings.store.writer import ShardWriter
from calotype.errors import StoreError
from calotype.progress import Show

__all__ = ["Copied", "copy_records", "export_store", "unpack_store"]

_AT_ONCE: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """Result of a copy."""

    records: int
    bytes: int
    """Bytes of the records' tensors."""
    damaged: list[str]
    """A message for each damaged record, which was not copied."""


def export_store(
    store: EncodingStore,
    folder: Path,
    rows: NDArray[np.int64],
    *,
    progress: Show = lambda done, total: None,
) -> Copied:
    """Copy records into another store, which is created if necessary. Records that it has are skipped.

    Args:
        store: The source.
        folder: Folder of the other store.
        rows: int64 (n,), rows of the records.
        progress: Called with (records done, records in all).

    Raises:
        StoreError: The folder can't be written, or is not a store.
    """
    target = EncodingStore(folder, create=True)
    rows = rows[target.find(store.keys(rows)) < 0]
    with target.writer() as writer:
        return copy_records(store, rows, writer, progress=progress)


def copy_records(
    store: EncodingStore,
    rows: NDArray[np.int64],
    writer: ShardWriter,
    *,
    progress: Show = lambda done, total: None,
) -> Copied:
    """Verify records and write them with a writer.

    Args:
        store: The source.
        rows: int64 (n,), rows of the records.
        writer: Writes into the other store.
        progress: Called with (records done, records in all).

    Raises:
        StoreError: The folder of the writer can't be written.
    """
    copied, nbytes, damaged = 0, 0, []
    for kind, chunk in _chunks(store, rows):
        whole, records = [], []
        for row in chunk:
            try:
                records.append(store.get(row))
                whole.append(row)
            except StoreError as error:
                damaged.append(str(error))
        writer.put(store.keys(np.array(whole, np.int64)), records, kind=kind)
        copied += len(whole)
        nbytes += sum(tensor.nbytes for record in records for tensor in record.values())
        progress(copied + len(damaged), len(rows))
    return Copied(records=copied, bytes=nbytes, damaged=damaged)


def _chunks(store: EncodingStore, rows: NDArray[np.int64]) -> Iterator[tuple[str, list[int]]]:
    """Yield runs of consecutive rows of one kind, each of at most 64 MiB."""
    layouts, which = store.layouts(rows)
    chunk: list[int] = []
    kind, size = "", 0
    for row, number in zip(rows.tolist(), which.tolist(), strict=True):
        layout = layouts[number]
        if chunk and (layout.kind != kind or size + layout.nbytes > _AT_ONCE):
            yield kind, chunk
            chunk, size = [], 0
        kind = layout.kind
        size += layout.nbytes
        chunk.append(row)
    if chunk:
        yield kind, chunk


def unpack_store(
    store: EncodingStore,
    folder: Path,
    rows: NDArray[np.int64],
    *,
    progress: Show = lambda done, total: None,
) -> Copied:
    """Write each record to `<key>.safetensors`: its tensors by name, its kind in the metadata.

    Args:
        store: The source.
        folder: Folder of the files; it is created if necessary.
        rows: int64 (n,), rows of the records.
        progress: Called with (records done, records in all).

    Raises:
        StoreError: The folder can't be written.
    """
    copied, nbytes, damaged = 0, 0, []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for row, key in zip(rows.tolist(), store.keys(rows), strict=True):
            try:
                record = store.get(row)
            except StoreError as error:
                damaged.append(str(error))
                continue
            name = key.tobytes().hex()
            parts = _safetensors(store.layout(row), record, {"kind": store.kind(row), "key": name})
            replace_file(folder / f"{name}.safetensors", parts)
            copied += 1
            nbytes += sum(tensor.nbytes for tensor in record.values())
            progress(copied + len(damaged), len(rows))
    except OSError as error:
        raise cannot_write(folder, error) from error
    return Copied(records=copied, bytes=nbytes, damaged=damaged)


def _safetensors(
    fields: tuple[Field, ...], record: dict[str, torch.Tensor], metadata: dict[str, str]
) -> list[bytes | memoryview]:
    """Return the parts of a safetensors file."""
    header: dict[str, object] = {"__metadata__": metadata}
    at = 0
    for field in fields:
        header[field.name] = {
            "dtype": field.dtype_name,
            "shape": list(field.shape),
            "data_offsets": [at, at + field.nbytes],
        }
        at += field.nbytes
    head = json.dumps(header, separators=(",", ":")).encode("ascii")
    head = head.ljust(-(-len(head) // 8) * 8)
    return [len(head).to_bytes(8, "little"), head, *(as_bytes(record[field.name]).data for field in fields)]
