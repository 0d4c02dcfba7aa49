"""The validation split: which side a picture is on follows from its content and nothing else."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from calotype.errors import MissingDependencyError
from calotype.manifest.manifest import REMOTE

__all__ = ["held_out"]

_WINDOW = 16 << 10


def held_out(table: pa.Table, root: Path, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which rows of a manifest's table are held out for validation.

    The side is a hash of the seed and the picture's fingerprint: its length in bytes and the first, middle and last
    16 KiB. Equal files have equal fingerprints, so copies under other names land on one side; no other picture plays
    a part, so adding some moves none; and no file is read whole. (Different pictures with one fingerprint would
    merely share a side.) A picture that is not on this machine, or can't be read, goes by its URL or id.
    """
    count = len(table)
    ids = table["id"].to_pylist()
    refs = ids if pa.types.is_null(table["ref"].type) else pc.coalesce(table["ref"], table["id"]).to_pylist()
    offsets, sizes, keys = (table[name].to_pylist() for name in ("offset", "size", "key"))
    environments = _Environments()

    def side(row: int) -> bool:
        print_ = None
        if not REMOTE.match(refs[row]):
            path = str(root / refs[row])
            try:
                if keys[row] is not None:
                    print_ = _of_bytes(environments.value(path, keys[row]))
                else:
                    print_ = _of_file(path, offsets[row] or 0, sizes[row])
            except OSError:
                print_ = None
        if print_ is None:
            print_ = (refs[row] if REMOTE.match(refs[row]) else ids[row]).encode("utf-8")
        hashed = xxhash.xxh3_64_intdigest(print_, seed=seed & (2**64 - 1))
        return hashed < fraction * 2.0**64

    try:
        # Waiting for the disk is what takes the time here.
        with ThreadPoolExecutor(8) as pool:
            sides = list(pool.map(side, range(count), chunksize=256))
    finally:
        environments.close()
    return np.array(sides, dtype=bool)


def _windows(size: int) -> list[tuple[int, int]]:
    """(start, length) of what is read of a picture of so many bytes."""
    if size <= 3 * _WINDOW:
        return [(0, size)]
    return [(0, _WINDOW), ((size - _WINDOW) // 2, _WINDOW), (size - _WINDOW, _WINDOW)]


def _of_file(path: str, offset: int, size: int | None) -> bytes:
    handle = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(handle).st_size if size is None else size
        return b"".join([size.to_bytes(8, "little"), *(os.pread(handle, n, offset + at) for at, n in _windows(size))])
    finally:
        os.close(handle)


def _of_bytes(data: bytes) -> bytes:
    return b"".join([len(data).to_bytes(8, "little"), *(data[at : at + n] for at, n in _windows(len(data)))])


class _Environments:
    """Open LMDB environments, one for each path."""

    def __init__(self) -> None:
        self._open: dict[str, object] = {}

    def value(self, path: str, key: bytes) -> bytes:
        try:
            import lmdb
        except ImportError:
            raise MissingDependencyError("lmdb", extra="lmdb", purpose=f"to read {path}") from None
        environment = self._open.get(path)
        if environment is None:
            environment = lmdb.open(path, subdir=Path(path).is_dir(), readonly=True, lock=False, max_spare_txns=8)
            self._open[path] = environment
        with environment.begin() as transaction:  # type: ignore[attr-defined]
            value = transaction.get(key)
        if value is None:
            raise FileNotFoundError(f"{path} has no key {key!r}")
        return bytes(value)

    def close(self) -> None:
        for environment in self._open.values():
            environment.close()  # type: ignore[attr-defined]
