"""The index of an LMDB environment, made once: an environment that is open already can't be opened again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from calotype.errors import ManifestError, MissingDependencyError
from calotype.manifest.cache import cached_table
from calotype.manifest.fingerprint import of_bytes

__all__ = ["lmdb_fingerprints", "lmdb_index"]

_INDEX = pa.schema([("key", pa.binary()), ("image", pa.bool_()), ("data", pa.large_binary())])
_FINGERPRINTS = pa.schema([("key", pa.binary()), ("fingerprint", pa.binary())])
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_MAX_TEXT = 1 << 20


def lmdb_index(path: Path) -> pa.Table:
    """Columns `key`, `image` (whether the value looks like a picture) and, for texts of up to 1 MiB, `data`.

    Raises:
        ManifestError: Not an LMDB environment, or one that this process has open.
    """

    def scan() -> Iterator[tuple[bytes, bool, bytes | None]]:
        with _items(path) as items:
            for key, value in items:
                image = _looks_like_image(bytes(value[:16]))
                yield bytes(key), image, None if image or len(value) > _MAX_TEXT else bytes(value)

    return _cached(path, _INDEX, scan)


def lmdb_fingerprints(path: Path) -> dict[bytes, bytes]:
    """Key → fingerprint of its value."""

    def scan() -> Iterator[tuple[bytes, bytes]]:
        with _items(path) as items:
            for key, value in items:
                yield bytes(key), of_bytes(value)

    table = _cached(path, _FINGERPRINTS, scan)
    return dict(zip(table["key"].to_pylist(), table["fingerprint"].to_pylist(), strict=True))


def _cached(path: Path, schema: pa.Schema, scan: Any) -> pa.Table:
    def make() -> tuple[pa.Schema, list[pa.RecordBatch]]:
        columns = list(zip(*scan(), strict=True)) or [()] * len(schema)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        return schema, [pa.record_batch(arrays, schema=schema)]

    data = path / "data.mdb" if path.is_dir() else path
    if not data.is_file():
        raise ManifestError(f"{path}: there is no such LMDB environment")
    return cached_table("archives", [data], make, note=schema.names[-1])


@contextmanager
def _items(path: Path) -> Iterator[Iterator[tuple[memoryview, memoryview]]]:
    try:
        import lmdb
    except ImportError:
        raise MissingDependencyError("lmdb", extra="lmdb", purpose=f"to read {path.name}") from None
    try:
        environment = lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, lock=False, create=False, readahead=False
        )
    except lmdb.Error as error:
        what = "it is open" if "already open" in str(error) else "not an LMDB environment"
        raise ManifestError(f"{path}: {what}: {error}") from None
    with environment, environment.begin(buffers=True) as transaction:
        yield iter(transaction.cursor())


def _looks_like_image(head: bytes) -> bool:
    if head.startswith(_SIGNATURES):
        return True
    return (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:8] == b"ftyp"
