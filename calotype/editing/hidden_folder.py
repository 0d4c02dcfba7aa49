"""`.calotype`, the hidden folder in a dataset: its lock, its backups, and leftovers of killed processes.

A dataset may come from anywhere, with its hidden folder. So nothing is written through a link in it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

from calotype.editing.work import StoppedError, Work
from calotype.errors import EditError

try:
    import fcntl
except ImportError:  # Windows: concurrent edits are not locked
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "HIDDEN_FOLDER",
    "back_up",
    "copy_beside",
    "hidden_folder",
    "locked",
    "open_hidden_file",
    "umask",
    "written_files",
]

HIDDEN_FOLDER: Final = ".calotype"
"""Its name. It holds files about the data: backups, the ledger of captions, the lock."""
_WRITING: Final = "writing"
"""Folder in it with a journal for each write in progress; its process holds a lock on it."""
_AT_ONCE: Final = 32
"""Threads that remove files."""
_TOKEN: Final = re.compile(r"[0-9a-f]{16}")


def hidden_folder(root: Path, *names: str) -> Path:
    """Return `root/.calotype/<names>`, and create it if it does not exist.

    Raises:
        EditError: It can't be created, or a folder of the path is a link.
    """
    folder = root
    for name in (HIDDEN_FOLDER, *names):
        folder = folder / name
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise EditError(f"{folder}: the folder can't be made: {error.strerror}; nothing was changed") from error
        if folder.is_symlink():
            raise EditError(f"{folder}: it is a link, and nothing is written through it; remove the link")
    return folder


def open_hidden_file(path: Path, flags: int) -> int:
    """Open a file of the hidden folder for writing, never through a link and without blocking on a pipe.

    Raises:
        OSError: It can't be opened, or is a link.
    """
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | os.O_CLOEXEC, 0o666)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Lock a dataset's folder for one process or thread at a time; leftovers of killed processes are moved first.

    Raises:
        EditError: Nothing can be written there.
    """
    lock = hidden_folder(root) / "lock"
    try:
        file = open_hidden_file(lock, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        what = "it is a link; remove it" if lock.is_symlink() else error.strerror
        raise EditError(f"{lock}: captions can't be changed here: {what}") from error
    try:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(OSError, EditError):
            _collect_leftovers(root)
        yield
    finally:
        os.close(file)


def back_up(files: Iterable[Path], root: Path, folder: Path | None = None, *, work: Work | None = None) -> Path:
    """Copy files to `root/.calotype/backups/<time>`, under their paths relative to `root`.

    Files that do not exist are ignored; those outside `root` are copied to the folder `outside` in it.

    Args:
        files: The files.
        root: The dataset's folder.
        folder: The folder that an earlier call returned; by default a new one.
        work: Shows progress, and can cancel it.

    Returns:
        The folder.

    Raises:
        StoppedError: It was cancelled; a new folder is removed.
        EditError: They can't be copied; the files must not be changed then.
    """
    new, listed = folder is None, list(files)
    try:
        folder = folder or _new_backup(root, "")
        for part in (work or Work()).parts("backing up", len(listed), unit="files"):
            for file in listed[part]:
                if file.is_file():
                    shutil.copy2(file, _backup_path(folder, file, root))
    except StoppedError:
        if new and folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    except OSError as error:
        raise EditError(
            f"{root / HIDDEN_FOLDER}: no backup can be made: {error.strerror}; nothing was changed"
        ) from error
    return folder


def copy_beside(file: Path) -> Path:
    """Copy a file to a new one beside it, `<name>.bak-<time>`.

    Raises:
        EditError: It can't be copied.
    """
    name = f"{file.name}.bak-{datetime.now():%Y-%m-%d_%H-%M-%S}"
    try:
        for number in count(1):
            copy = file.with_name(name if number == 1 else f"{name}-{number}")
            with suppress(FileExistsError), copy.open("xb") as opened:  # "x": no file or link has this name
                opened.write(file.read_bytes())
                shutil.copystat(file, copy)
                return copy
    except OSError as error:
        raise EditError(f"{file}: no backup can be made: {error.strerror}; nothing was changed") from error
    raise AssertionError


@contextmanager
def written_files(root: Path | None, targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield the path of a temporary file beside each target, and remove the temporary files at the end.

    During a write, a locked journal in the hidden folder lists them. If a journal is not locked, its process was
    killed, and `locked` moves its files to a backup.

    Args:
        root: The dataset's folder; None: write no journal.
        targets: Files, with links resolved.

    Raises:
        OSError: Nothing can be written in the hidden folder.
    """
    token = os.urandom(8).hex()
    names = _names(token, targets)
    journal = None if root is None else hidden_folder(root, _WRITING) / token
    file = None if journal is None else open_hidden_file(journal, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        if file is not None:
            if fcntl is not None:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
            with os.fdopen(file, "wb", closefd=False) as opened:
                opened.write(json.dumps([str(target) for target in targets]).encode())
        yield names
    finally:
        # In threads: a file system may wait for the disk in each of these calls, but in all of them at once.
        with ThreadPoolExecutor(min(_AT_ONCE, len(names) or 1)) as pool:
            list(pool.map(_remove, names))
        if journal is not None and file is not None:
            journal.unlink(missing_ok=True)
            os.close(file)


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)


def umask() -> int:
    """Return the permissions that new files lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _names(token: str, targets: Sequence[Path]) -> list[Path]:
    return [target.with_name(f".calotype-{token}-{number}") for number, target in enumerate(targets)]


def _collect_leftovers(root: Path) -> None:
    """Move the temporary files of killed processes to a backup: one may be the only copy of a replaced file."""
    if fcntl is None:
        return
    folder = root / HIDDEN_FOLDER / _WRITING
    if folder.is_symlink() or not folder.is_dir():
        return
    for journal in folder.iterdir():
        if not _TOKEN.fullmatch(journal.name):
            continue
        with suppress(OSError):
            file = open_hidden_file(journal, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _move_leftovers(root, journal, file)
                journal.unlink()
            finally:
                os.close(file)


def _move_leftovers(root: Path, journal: Path, file: int) -> None:
    with os.fdopen(file, "rb", closefd=False) as opened:
        try:
            found: Any = json.load(opened)
        except (ValueError, RecursionError):
            return  # killed before it wrote a file
    targets = [Path(one) for one in found if isinstance(one, str)] if isinstance(found, list) else []
    leftovers = [
        (name, target)
        for name, target in zip(_names(journal.name, targets), targets, strict=True)
        if name.is_file() and not name.is_symlink()
    ]
    if leftovers:
        backup = _new_backup(root, "interrupted_")
        for name, target in leftovers:
            shutil.move(name, _backup_path(backup, target, root))


def _new_backup(root: Path, kind: str) -> Path:
    prefix = datetime.now().strftime("%Y-%m-%d_%H-%M-%S_") + kind
    folder = Path(tempfile.mkdtemp(dir=hidden_folder(root, "backups"), prefix=prefix))
    folder.chmod(0o777 & ~umask())
    return folder


def _backup_path(folder: Path, file: Path, root: Path) -> Path:
    inside = file.is_relative_to(root)
    path = folder / (file.relative_to(root) if inside else Path("outside", *file.parts[1:]))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
