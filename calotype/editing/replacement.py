"""Files that are changed in place: replaced as a whole, and only while they are as they were found.

Another program may save a file at any moment, also between a last look at it and the rename that replaces it. So the
new file and the old one are exchanged in one step where the system can (Linux), and what came out is compared with
what was expected: if another program's text came out, it is put back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import xxhash

from calotype.editing.hidden_folder import umask, written_files
from calotype.editing.renames import exchange, exchange_in_steps, rename_new
from calotype.errors import EditError

__all__ = ["Replacement", "digest_of", "replacing"]

_AT_ONCE: Final = 32
"""Files written at a time."""
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
    files: Mapping[Path, bytes], found: Mapping[Path, bytes | None], root: Path | None
) -> Iterator[Replacement]:
    """Write new contents of several files; inside, all are on the disk, and `Replacement.put` puts them in place.

    Args:
        files: Path → what it is to hold. A link stays a link, to a new file; rights stay as they were.
        found: Path → `digest_of` what it is expected to hold; one that is not named may hold anything.
        root: The dataset's folder, whose lock is held: there it is noted what is under way.

    Raises:
        EditError: A folder can't be written to, or the disk is full.
    """
    targets = [Path(os.path.realpath(path)) for path in files]
    rights = 0o666 & ~umask()

    def write(name: Path, target: Path, data: bytes) -> None:
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        name.chmod(target.stat().st_mode & 0o7777 if target.exists() else rights)

    try:
        with written_files(root, targets) as names:
            # The disk makes what many wait for at once lasting in one go: 20,000 files in a quarter of the time.
            with ThreadPoolExecutor(min(_AT_ONCE, len(targets) or 1)) as pool:
                list(pool.map(write, names, targets, files.values()))
            yield Replacement(dict(zip(files, zip(names, targets, strict=True), strict=True)), files, found)
    except OSError as error:
        place = error.filename2 or Path(error.filename or targets[0]).parent
        raise EditError(f"{place}: can't be written: {error.strerror}; nothing of it was changed") from error


@dataclass(slots=True)
class Replacement:
    """Files that wait to take the places of others. Made by `replacing`."""

    _places: Mapping[Path, tuple[Path, Path]]
    """Path → (the new file, the file that it replaces)."""
    _data: Mapping[Path, bytes]
    _found: Mapping[Path, bytes | None]
    _old: dict[Path, os.stat_result] = field(default_factory=dict)
    """Path → the file that it was, which now has the new file's name, as it was compared."""

    def put(self, paths: Iterable[Path]) -> bool:
        """Let files take their places: all of these, or none.

        Returns:
            False: another program has changed one of them, and all are as that program left them.
        """
        put: list[Path] = []
        for path in paths:
            if not self._put(path):
                for one in put:
                    self._give_back(one)
                return False
            put.append(path)
        return True

    def put_back_late(self) -> list[Path]:
        """Put back the files that a program has written to after they were replaced, as it had them open already."""
        late = [path for path, known in self._old.items() if _changed(self._places[path][0], known)]
        for path in late:
            self._give_back(path)
        return late

    def _put(self, path: Path) -> bool:
        name, target = self._places[path]
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
        self._give_back(path)
        return False

    def _give_back(self, path: Path) -> None:
        """Put what came out of a place into it again, and what another program saves there meanwhile last of all."""
        name, target = self._places[path]
        standing = digest_of(self._data[path])
        if self._old.pop(path, None) is None:  # there was none before
            if digest_of(target) == standing:
                target.unlink()
            return
        while True:
            held = digest_of(name)
            try:
                if not exchange(name, target):
                    exchange_in_steps(name, target)
            except FileNotFoundError:
                rename_new(name, target)
                return
            if digest_of(name) == standing:
                return
            standing = held


def _changed(path: Path, known: os.stat_result) -> bool:
    found = path.stat()
    return (found.st_ino, found.st_size, found.st_mtime_ns) != (known.st_ino, known.st_size, known.st_mtime_ns)
