"""The index of an LMDB environment, made once by a process of its own, which a damaged one may end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from calotype.core.file_state import file_holding
from calotype.errors import ManifestError, MissingDependencyError
from calotype.manifest.archives import lmdb_walk
from calotype.manifest.cache import cached_table
from calotype.manifest.fingerprint import of_bytes

__all__ = ["lmdb_fingerprints", "lmdb_index"]

_INDEX = pa.schema([("key", pa.binary()), ("image", pa.bool_()), ("data", pa.large_binary())])
_FINGERPRINTS = pa.schema([("key", pa.binary()), ("fingerprint", pa.binary())])


def lmdb_index(path: Path) -> pa.Table:
    """Columns `key`, `image` (whether the value looks like an image) and, for texts of up to 1 MiB, `data`.

    Every page that leads to a value has been read then, so that the environment may be read in this process.

    Raises:
        ManifestError: Not a whole LMDB environment.
    """
    lmdb = _lmdb(path)
    if not Path(file_holding(str(path), b"")).is_file():
        raise ManifestError(f"{path}: there is no such LMDB environment")
    return _cached(path, _INDEX, lambda: _walk(path, Path(lmdb.__file__).parents[1]))


def lmdb_fingerprints(path: Path) -> dict[bytes, bytes]:
    """Key → fingerprint of its value."""
    lmdb_index(path)
    lmdb = _lmdb(path)

    def scan() -> list[tuple[bytes, bytes]]:
        try:
            environment = lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, create=False, readahead=False
            )
            with environment, environment.begin(buffers=True) as transaction:
                return [(bytes(key), of_bytes(value)) for key, value in transaction.cursor()]
        except lmdb.Error as error:
            raise ManifestError(f"{path}: the LMDB environment can't be read: {error}") from None

    table = _cached(path, _FINGERPRINTS, scan)
    return dict(zip(table["key"].to_pylist(), table["fingerprint"].to_pylist(), strict=True))


def _cached(path: Path, schema: pa.Schema, scan: Any) -> pa.Table:
    def make() -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
        columns = list(zip(*scan(), strict=True)) or [()] * len(schema)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        return schema, [pa.record_batch(arrays, schema=schema)]

    return cached_table("archives", [Path(file_holding(str(path), b""))], make, note=schema.names[-1])


def _walk(path: Path, packages: Path) -> list[tuple[bytes, bool, bytes | None]]:
    # Without `site`: it is started once for each environment, and imports nothing but lmdb.
    command = [sys.executable, "-I", "-S", lmdb_walk.__file__, str(packages), str(path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode < 0:
        raise ManifestError(
            f"{path}: the LMDB environment is cut off or damaged (reading it ended a process with signal "
            f"{-done.returncode}); copy it again"
        )
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ManifestError(f"{path}: {lines[-1] if lines else 'the LMDB environment can not be read'}")
    return list(lmdb_walk.read_records(done.stdout))


def _lmdb(path: Path) -> Any:
    try:
        import lmdb
    except ImportError:
        raise MissingDependencyError("lmdb", extra="lmdb", purpose=f"to read {path.name}") from None
    return lmdb
