"""Files that appear whole or not at all: written under a temporary name, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

__all__ = ["DISK_FULL", "NewFile", "flush_folder", "new_file", "replace_file", "sync_folder", "sync_path"]

DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a write for which there is no space: a full disk, a quota, a limit of the file's size."""


class NewFile:
    """A file under a temporary name. Made by `new_file`."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.file = file
        """Open for writing."""

    def publish(self, target: Path, *, durable: bool = True) -> None:
        """Rename the file to `target`, which it replaces and whose mode it keeps.

        Args:
            target: A path in the same folder, not a symbolic link.
            durable: Flush the file before and the folder after, so that a power cut leaves the old or the new file.

        Raises:
            OSError: The disk does not take it; `target` is unchanged.
        """
        self.file.flush()
        if durable:
            os.fsync(self.file.fileno())
        self.file.close()
        with suppress(FileNotFoundError):
            self.path.chmod(target.stat().st_mode & 0o7777)
        self.path.replace(target)
        if durable:
            sync_folder(target.parent)


@contextmanager
def new_file(folder: Path) -> Iterator[NewFile]:
    """Open a new file in a folder, with the permissions of the umask; unless it is published, it is deleted at the end.

    Raises:
        OSError: The folder can't be written.
    """
    path = folder / f".writing-{secrets.token_hex(8)}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    file = os.fdopen(handle, "wb")
    try:
        yield NewFile(path, file)
    finally:
        with suppress(OSError):  # of contents that are thrown away
            file.close()
        path.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes | bytearray | memoryview | Iterable[Any], *, durable: bool = True) -> None:
    """Write a file, or replace its contents: another process sees the old contents or the new ones, never a part.

    A symbolic link stays a link, and an existing file keeps its mode.

    Args:
        path: The file; its folder exists.
        data: The contents, in one buffer or several.
        durable: Flush file and folder to the disk; False for what can be made again.

    Raises:
        OSError: It can't be written; the old contents are unchanged.
    """
    path = Path(os.path.realpath(path))
    with new_file(path.parent) as new:
        parts: Iterable[Any] = (data,) if isinstance(data, bytes | bytearray | memoryview) else data
        for part in parts:
            new.file.write(part)
        new.publish(path, durable=durable)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the file system can."""
    with suppress(OSError):
        sync_path(folder)


def flush_folder(folder: Path) -> None:
    """Flush all files below a folder, and their names, to the disk.

    Raises:
        OSError: The disk does not take them.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            sync_path(path)
    sync_folder(folder)


def sync_path(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk.

    Raises:
        OSError: The disk or the file system does not take it.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
