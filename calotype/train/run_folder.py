"""The folder of a run: those in it, and a lock that admits one run at a time. Needs no torch."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from calotype.errors import ConfigError
from calotype.terminal import get_logger

try:
    import fcntl
except ImportError:  # Windows has none: two runs in one folder are not detected there
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "RUN_FOLDERS", "check_old_default", "check_start", "refuse_earlier", "sole_run"]

_log = get_logger("calotype")
_held: set[int] = set()  # descriptors of the locks that this process holds

RUN_FOLDERS: Final = ("checkpoints", "logs", "samples")
"""The folders that a run creates in its own."""

LOCK: Final = ".run.lock"
"""Name of the file that an active run has locked."""

_OLD_DEFAULT: Final = Path("output")
"""The default folder of every run in earlier versions."""


def check_old_default(output: Path) -> None:
    """Refuse to start a new run where `--resume` may mean one in the former default folder.

    Raises:
        ConfigError: `output` has no checkpoints and the old default has.
    """
    there = sorted(path.name for path in (_OLD_DEFAULT / "checkpoints").glob("step-*"))
    if there and not any((output / "checkpoints").glob("step-*")):
        raise ConfigError(
            f"--resume: {output} has no checkpoint, and {_OLD_DEFAULT} has {there[-1]}: runs without output_dir were "
            f"written there before. output_dir={_OLD_DEFAULT} resumes it, output_dir={output} begins anew"
        )


def check_start(output: Path, *, resume: bool) -> str | None:
    """Check before torch is imported how a run starts; `to_resume` decides it, once the folder is locked.

    Returns:
        A message, where there is nothing to resume from.

    Raises:
        ConfigError: As for `refuse_earlier`.
    """
    checkpoints = output / "checkpoints"
    if resume and not any(checkpoints.glob("step-*")):
        return f"note: --resume: {output.absolute()} has no checkpoint; begins anew"
    if not resume and not (output / LOCK).exists():  # a run that is active there is another error
        refuse_earlier(checkpoints)
    return None


def refuse_earlier(checkpoints: Path) -> None:
    """Refuse to begin a run where an earlier one has checkpoints.

    Raises:
        ConfigError: The folder has one.
    """
    if there := sorted(checkpoints.glob("step-*")):
        raise ConfigError(f"{there[-1]}: is of an earlier run; --resume continues it, output_dir=… begins anew")


@contextmanager
def sole_run(lock: Path, folder: Path) -> Iterator[bool]:
    """Lock a folder against other runs.

    The system releases the lock when the process ends, even if it is killed. A forked process does not hold it. Over
    NFS the lock works between machines if the server supports locks (NFS 4, or `lockd`), and only within one machine
    with the mount option `local_lock=flock`.

    Args:
        lock: The file to lock; created if missing, deleted afterwards.
        folder: The folder that errors name.

    Yields:
        Whether the lock is held: False on a system or file system without locks; a warning names it.

    Raises:
        ConfigError: Another run holds it (names its process and host), or the file can't be written.
    """
    if fcntl is None:
        yield False
        return
    fd, held = _lock(lock, folder)
    _held.add(fd)
    try:
        if held:
            known = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
            with suppress(OSError):  # a full disk: the lock works without the contents
                os.ftruncate(fd, 0)
                os.pwrite(fd, json.dumps(known).encode() + b"\n", 0)
        yield held
    finally:
        if fd in _held:
            _held.remove(fd)
            with suppress(OSError):
                lock.unlink()  # before the release: a run that opened the file meanwhile finds it deleted
            os.close(fd)


def _lock(lock: Path, folder: Path) -> tuple[int, bool]:
    """Open and lock a file; return its descriptor and whether the lock is held."""
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
    except (OSError, ValueError, KeyError, TypeError):  # not written yet
        return ""


def _release_in_child() -> None:
    """Close the descriptors of locks in a forked process."""
    for fd in _held:
        os.close(fd)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
