"""Files that several processes share: unique names, whole writes, and replacing that is seen at once or not at all."""

from __future__ import annotations

import ctypes
import os
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from calotype.core.atomic import DISK_FULL
from calotype.errors import StoreError

__all__ = ["cannot_write", "reserve", "unique_name", "write_all"]

_IOV_MAX: Final = 1024
"""Buffers that Linux takes in one call."""

_fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def unique_name() -> str:
    """A name that no other process gives, sorted by time: `20260131T093000123456-9f86d081`."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"


def write_all(fd: int, parts: Iterable[Any], offset: int) -> None:
    """Writes the buffers one after the other at `offset`, however many calls that takes.

    Raises:
        OSError: As the system says; some of it may have been written.
    """
    queue = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
    first = 0
    while first < len(queue):
        done = os.pwritev(fd, queue[first : first + _IOV_MAX], offset)
        offset += done
        while first < len(queue) and done >= queue[first].nbytes:
            done -= queue[first].nbytes
            first += 1
        if done:
            queue[first] = queue[first][done:]


def reserve(fd: int, size: int, offset: int) -> None:
    """Takes the room for a large write beforehand: a third less work for the kernel than page by page.

    Not `os.posix_fallocate`, which writes into every block where the file system has no such call (NFS).

    Raises:
        OSError: There is no room.
    """
    if _fallocate is not None and _fallocate(fd, 0, offset, size) != 0:
        number = ctypes.get_errno()
        if number in DISK_FULL:
            raise OSError(number, os.strerror(number))


def cannot_write(path: Path, error: OSError) -> StoreError:
    """The error for a write that failed: a full disk, a quota, a folder that is read-only."""
    full = error.errno in DISK_FULL
    hint = "make room and run again: what was written before is kept" if full else "nothing written before is lost"
    return StoreError(f"{path}: can't be written: {error.strerror or error}; {hint}", shard=path.name)
