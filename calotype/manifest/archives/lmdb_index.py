"""The index of an LMDB environment, made in a subprocess: a damaged environment may crash the process that reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from calotype.core.file_state import file_holding
from calotype.errors import ManifestError, MissingDependencyError
from calotype.manifest.archives import lmdb_walk
from calotype.manifest.cache import cached_rows
from calotype.manifest.fingerprint import of_bytes

__all__ = ["lmdb_fingerprints", "lmdb_index"]

_INDEX = pa.schema([("key", pa.binary()), ("image", pa.bool_()), ("data", pa.large_binary())])
_FINGERPRINTS = pa.schema([("key", pa.binary()), ("fingerprint", pa.binary())])


def lmdb_index(path: Path) -> pa.Table:
    """Return the keys of an environment, from the cache or by a walk in a subprocess.

    The columns are `key`, `image` (whether the value looks like an image) and `data` (of texts up to 1 MiB). The walk
    reads every page that leads to a value, so this process can then read the environment safely.

    Raises:
        ManifestError: The environment is damaged or incomplete.
    """
    lmdb = _lmdb(path)
    file = _data_file(path)
    if not file.is_file():
        raise ManifestError(f"{path}: there is no such LMDB environment")
    return cached_rows("archives", file, _INDEX, lambda: _walk(path, Path(lmdb.__file__).parents[1]), note="data")


def lmdb_fingerprints(path: Path) -> dict[bytes, bytes]:
    """Return the fingerprint of each key's value."""
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

    table = cached_rows("archives", _data_file(path), _FINGERPRINTS, scan, note="fingerprint")
    return dict(zip(table["key"].to_pylist(), table["fingerprint"].to_pylist(), strict=True))


def _data_file(path: Path) -> Path:
    return Path(file_holding(str(path), b""))


def _walk(path: Path, packages: Path) -> list[tuple[bytes, bool, bytes | None]]:
    # -I -S: a fast start, since there is one process per environment, which imports only lmdb.
    command = [sys.executable, "-I", "-S", lmdb_walk.__file__, str(packages), str(path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode < 0:
        raise ManifestError(
            f"{path}: the LMDB environment is cut off or damaged (a process that read it ended with signal "
            f"{-done.returncode}); copy it again"
        )
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ManifestError(f"{path}: {lines[-1] if lines else 'the LMDB environment is unreadable'}")
    return list(lmdb_walk.read_records(done.stdout))


def _lmdb(path: Path) -> Any:
    try:
        import lmdb
    except ImportError:
        raise MissingDependencyError("lmdb", extra="lmdb", purpose=f"to read {path.name}") from None
    return lmdb
