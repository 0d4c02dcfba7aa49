"""One run at a time in a folder: a lock that goes with the process that holds it, however it ends."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from calotype.errors import ConfigError
from calotype.terminal import get_logger

try:
    import fcntl
except ImportError:  # Windows has none: there, who starts two runs in one folder has to see to it
    fcntl = None  # type: ignore[assignment]

__all__ = ["sole_run"]

_log = get_logger("calotype")
_held: set[int] = set()  # descriptors of the locks that this process holds


@contextmanager
def sole_run(lock: Path, folder: Path) -> Iterator[bool]:
    """Keeps every other run out of a folder.

    The system releases the lock when the process ends. A process that was forked from it does not hold it. Over NFS the
    lock holds between machines where the server has locks (NFS 4, or `lockd`), and within one machine with the mount
    option `local_lock=flock`.

    Args:
        lock: The file to lock: made if it is not there, deleted afterwards.
        folder: What it stands for, for errors.

    Yields:
        Whether the lock is held: False on a system or file system without locks, which a warning names.

    Raises:
        ConfigError: Another run holds it: names its process and host. Or the file can't be written.
    """
    if fcntl is None:
        yield False
        return
    fd, held = _lock(lock, folder)
    _held.add(fd)
    try:
        if held:
            known = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
            with suppress(OSError):  # a full disk: the lock holds without that
                os.ftruncate(fd, 0)
                os.pwrite(fd, json.dumps(known).encode() + b"\n", 0)
        yield held
    finally:
        if fd in _held:
            _held.remove(fd)
            with suppress(OSError):
                lock.unlink()  # before it is released: whoever opened it meanwhile sees that it is gone
            os.close(fd)


def _lock(lock: Path, folder: Path) -> tuple[int, bool]:
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ConfigError(f"{folder}: can't be written: {error.strerror}; name another folder") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if lock.stat().st_ino == os.fstat(fd).st_ino:
                    return fd, True
            os.close(fd)  # its holder has just ended and deleted it
        except BlockingIOError:
            holder = _holder(fd)
            os.close(fd)
            raise ConfigError(
                f"{folder}: another run is writing here{holder}. Wait until it has ended, or name another folder"
            ) from None
        except OSError as error:
            _log.warning("%s: can't be locked (%s): a second run in it would not be noticed", folder, error.strerror)
            return fd, False


def _holder(fd: int) -> str:
    try:
        known = json.loads(os.pread(fd, 4096, 0))
        return f" (process {known['pid']} on {known['host']}, since {known['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it has yet to write who it is
        return ""


def _let_go() -> None:
    for fd in _held:
        os.close(fd)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
