"""Reads small text files (captions, presets, configs) safely: no device, pipe or endless file makes the reader hang."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

__all__ = ["LIMIT", "read_small_file", "require_regular"]

LIMIT: Final = 1 << 20
"""Maximum bytes of a small file. A caption has a few hundred, a config some thousand."""

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "a device"),
)


def read_small_file(path: str | os.PathLike[str], limit: int = LIMIT) -> bytes:
    """Read a regular file completely, without blocking.

    Args:
        path: The file, or a link to one.
        limit: Maximum number of bytes.

    Raises:
        OSError: It can't be opened, is not a regular file, or is longer than `limit`; `strerror` has the reason.
    """
    # Non-blocking: opening a pipe would hang until it has a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise _not_regular(info.st_mode, path)
        # Files in /proc report size 0, and others may grow while they are read: count the bytes read as well.
        data = os.read(descriptor, min(info.st_size, limit) + 1)
        while info.st_size < len(data) <= limit and (more := os.read(descriptor, limit + 1 - len(data))):
            data += more
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"longer than {limit:,} bytes, which is no text of this kind", os.fspath(path))
    return data


def require_regular(path: str | os.PathLike[str]) -> None:
    """Check that a path is a regular file, or a link to one.

    Raises:
        OSError: It does not exist, or is a folder, pipe, socket or device; `strerror` has the reason.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 - also of paths that are plain text
    if not stat.S_ISREG(mode):
        raise _not_regular(mode, path)


def _not_regular(mode: int, path: str | os.PathLike[str]) -> OSError:
    what = next((name for test, name in _KINDS if test(mode)), "something else")
    return OSError(errno.EINVAL, f"it is {what}, not a regular file", os.fspath(path))
