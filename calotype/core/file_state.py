"""`FileState`: detects whether a file has changed since it was read. All caches about files compare it."""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = ["FileState", "file_holding", "file_state", "state_of"]


class FileState(NamedTuple):
    """Size, times and inode of a file: equal as long as the file is unchanged. Four 64-bit integers, as in SQLite.

    The device is not part of it: its number changes when a disk is mounted again.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    """Time of the last change of the inode. No tool sets it back; `rsync -t`, `cp -p` and `tar` set `mtime_ns`."""
    inode: int
    """Changes when another file is renamed to this name."""


def file_state(path: str | os.PathLike[str]) -> FileState | None:
    """Return the state of a file, following links; None if there is no file."""
    try:
        return state_of(os.stat(path))  # noqa: PTH116 - a Path for each of 100,000 images costs half a second
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return None


def state_of(info: os.stat_result) -> FileState:
    """Return the state in a result of `os.stat`."""
    return FileState(info.st_size, _signed(info.st_mtime_ns), info.st_ctime_ns, _signed(info.st_ino))


def file_holding(path: str, key: bytes | None) -> str:
    """Return the file whose state is that of an image: its own file, or the data file of an LMDB folder.

    Args:
        path: Path of the image's file or LMDB environment.
        key: Key in the LMDB environment; None for a file.
    """
    return f"{path}/data.mdb" if key is not None and os.path.isdir(path) else path  # noqa: PTH112


def _signed(value: int) -> int:
    return value if value < 1 << 63 else value - (1 << 64)
