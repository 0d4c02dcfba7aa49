"""Replaces files as a whole, and only if they are unchanged since they were read.

Another program may save a file at any moment, also between the last comparison and the rename that replaces it. So the
new and the old file are exchanged atomically if the system can (Linux), and the old file is compared afterwards: if it
is another program's version, it is exchanged back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import xxhash

from calotype.core.atomic import sync_path
from calotype.core.file_state import FileState, state_of
from calotype.editing.hidden_folder import umask, written_files
from calotype.editing.renames import exchange, exchange_in_steps, rename_new
from calotype.editing.work import Work
from calotype.errors import EditError

__all__ = ["Replacement", "digest_of", "replacing"]

_AT_ONCE: Final = 32
"""Threads that write files."""
_BLOCK: Final = 1 << 20


def digest_of(contents: Path | bytes) -> bytes | None:
    """Return a hash of contents, or of a file's; None where there is no file."""
    if isinstance(contents, bytes):
        return xxhash.xxh3_128_digest(contents)
    hasher = xxhash.xxh3_128()
    try:
        with contents.open("rb") as file:
            while block := file.read(_BLOCK):
                hasher.update(block)
    except FileNotFoundError:
        return None
    return hasher.digest()


@contextmanager
def replacing(
    files: Mapping[Path, bytes], found: Mapping[Path, bytes | None], root: Path | None, *, work: Work | None = None
) -> Iterator[Replacement]:
    """Write the new contents of files to temporary files on disk; `Replacement.put` then replaces the files.

    Args:
        files: Path → new contents. A link stays a link, to a new file; permissions are kept.
        found: Path → `digest_of` the expected contents. A path that is not in it is replaced in any case.
        root: The dataset's folder, whose lock the caller holds; a journal of the temporary files is written there.
        work: Shows progress, and can cancel it.

    Raises:
        StoppedError: It was cancelled; no file was replaced.
        EditError: A folder can't be written to, or the disk is full.
    """
    work = work or Work()
    targets, contents = [Path(os.path.realpath(path)) for path in files], list(files.values())
    mode = 0o666 & ~umask()

    def write(name: Path, target: Path, data: bytes) -> None:
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        name.chmod(target.stat().st_mode & 0o7777 if target.exists() else mode)

    try:
        with written_files(root, targets) as names:
            with ThreadPoolExecutor(min(_AT_ONCE, len(targets) or 1)) as pool:
                for part in work.parts("writing files", len(names), unit="files"):
                    list(pool.map(write, names[part], targets[part], contents[part]))
                # All are flushed before the first is put, and after the last is written: one commit of the file system
                # then serves many files, and concurrent calls share flushes of the disk.
                for part in work.parts("flushing files to the disk", len(names), unit="files"):
                    list(pool.map(sync_path, names[part]))
            yield Replacement(dict(zip(files, zip(names, targets, strict=True), strict=True)), files, found)
    except OSError as error:
        path = error.filename2 or Path(error.filename or targets[0]).parent
        raise EditError(f"{path}: can't be written: {error.strerror}; nothing of it was changed") from error


@dataclass(slots=True)
class Replacement:
    """New files that can replace others. `replacing` yields it."""

    _paths: Mapping[Path, tuple[Path, Path]]
    """Path → (the new file, the file that it replaces)."""
    _data: Mapping[Path, bytes]
    _found: Mapping[Path, bytes | None]
    _old: dict[Path, os.stat_result] = field(default_factory=dict)
    """Path → the replaced file's status when it was compared; it now has the temporary name."""
    _new: dict[Path, os.stat_result] = field(default_factory=dict)
    """Path → the status of its new file before it was put."""

    def put(self, paths: Iterable[Path]) -> bool:
        """Replace all of these files, or none.

        Returns:
            False: another program has changed one of them; all are as that program saved them.
        """
        put: list[Path] = []
        for path in paths:
            if not self._put(path):
                for one in put:
                    self._restore(one)
                return False
            put.append(path)
        return True

    def put_back_late(self) -> list[Path]:
        """Restore replaced files that another program, which had them open, has written to since."""
        late = [path for path, known in self._old.items() if _changed(self._paths[path][0], known)]
        for path in late:
            self._restore(path)
        return late

    def states(self) -> dict[Path, FileState]:
        """Return the state of each file that was put, as long as no other program has written to it."""
        found = {}
        for path, known in self._new.items():
            with suppress(OSError):
                if not _changed(path, known):
                    found[path] = state_of(path.stat())
        return found

    def _put(self, path: Path) -> bool:
        name, target = self._paths[path]
        self._new[path] = name.stat()
        if path not in self._found:
            name.replace(target)
            return True
        expected = self._found[path]
        if expected is None:
            return rename_new(name, target)
        try:
            if not exchange(name, target):
                if digest_of(target) != expected:
                    return False
                exchange_in_steps(name, target)
        except FileNotFoundError:
            return False
        self._old[path] = name.stat()
        if digest_of(name) == expected:
            return True
        self._restore(path)
        return False

    def _restore(self, path: Path) -> None:
        """Restore a replaced file; a version that another program saves meanwhile is kept as the last one."""
        name, target = self._paths[path]
        del self._new[path]
        current = digest_of(self._data[path])
        if self._old.pop(path, None) is None:  # it was a new file
            if digest_of(target) == current:
                target.unlink()
            return
        while True:
            restored = digest_of(name)
            try:
                if not exchange(name, target):
                    exchange_in_steps(name, target)
            except FileNotFoundError:
                rename_new(name, target)
                return
            if digest_of(name) == current:
                return
            current = restored


def _changed(path: Path, known: os.stat_result) -> bool:
    found = path.stat()
    return (found.st_ino, found.st_size, found.st_mtime_ns) != (known.st_ino, known.st_size, known.st_mtime_ns)
