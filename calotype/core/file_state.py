"""Whether a file is still the one that was read: what everything that is remembered of files goes by."""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = ["FileState", "file_holding", "file_state", "state_of"]


class FileState(NamedTuple):
    """While it is equal, so is the file. Four 64-bit integers, as SQLite has them.

    The device is not part of it: its number changes when a disk is mounted anew.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    """Time of the last change of the inode: no tool sets it back, as `rsync -t`, `cp -p` and `tar` set `mtime_ns`."""
    inode: int
    """Another file that was renamed to this name has another."""


def file_state(path: str | os.PathLike[str]) -> FileState | None:
    """The state of the file, links followed; None where there is none."""
    try:
        return state_of(os.stat(path))  # noqa: PTH116 - a Path for each of 100,000 images costs half a second
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return None


def state_of(info: os.stat_result) -> FileState:
    """The state in what `os.stat` gave."""
    return FileState(info.st_size, _signed(info.st_mtime_ns), info.st_ctime_ns, _signed(info.st_ino))


def file_holding(path: str, key: bytes | None) -> str:
    """The file whose state is that of an image: an LMDB environment may be a folder with it."""
    return f"{path}/data.mdb" if key is not None and os.path.isdir(path) else path  # noqa: PTH112


def _signed(value: int) -> int:
    return value if value < 1 << 63 else value - (1 << 64)
