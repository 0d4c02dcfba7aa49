"""`Disk`: which files a dataset has, and their states when they were compared last."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from calotype.core.file_state import FileState, file_state

__all__ = ["Disk", "Seen"]

_FILES_PER_LOOK: Final = 10_000
"""Files that one look compares, besides those that are asked for."""
_SETTLED_SECONDS: Final = 3.0
"""The time of a folder's last change shows every change only once it is this old: file systems round it, to 2 s."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder as it was listed."""

    mtime_ns: int
    """When its names changed last."""
    settled: bool
    """Whether a later change of its names changes `mtime_ns`."""
    files: frozenset[str]
    """Paths of its files, without hidden ones."""
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look has found."""

    folders: Mapping[str, _Folder]
    states: dict[str, FileState | None]
    """File → its state; None: it is gone."""
    came: frozenset[str]
    """Files that were not there before."""
    went: frozenset[str]


class Disk:
    """The files below folders, and others that are asked for.

    A look compares 10,000 files at most, in turns, and lists the folders whose names have changed; so its time does not
    grow with the dataset. Where a round is complete, it lists every folder: a network share may not show the time.

    Args:
        folders: The folders.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._roots = tuple(folders)
        self._folders: Mapping[str, _Folder] = {}
        self._states: dict[str, FileState] = {}
        self._turn: list[str] = []

    def start(self) -> None:
        """List the folders."""
        self._folders = self._listed(every=True)

    def files(self) -> Iterable[str]:
        """Return the files in the folders, as listed last."""
        return (file for folder in self._folders.values() for file in folder.files)

    def known(self, path: str) -> FileState | None:
        """Return the state of a file when it was compared last; the first call looks it up. Thread-safe."""
        found = self._states.get(path)
        if found is None and (found := file_state(path)) is not None:
            found = self._states.setdefault(path, found)
        return found

    def look(self, first: Iterable[str] = (), *, every: bool = False) -> Seen:
        """Return the present states of some files, and of those that came or went.

        Args:
            first: Files that are compared in any case, if they are known.
            every: Compare all known files.
        """
        folders = self._listed(every=every or not self._turn)
        came = _other_files(folders, self._folders)
        went = _other_files(self._folders, folders)
        chosen = {path for path in first if path in self._states} | came
        chosen.update(list(self._states) if every else self._next())
        states = {path: file_state(path) for path in chosen} | dict.fromkeys(went)
        return Seen(folders=folders, states=states, came=came, went=went)

    def changed(self, seen: Seen, written: Mapping[str, FileState]) -> set[str]:
        """Return the files that other programs have changed.

        Args:
            seen: What a look has found.
            written: Files that were written here → their states then. They were possibly looked at before.
        """
        self._states |= written
        seen.states.update({path: file_state(path) for path in written})
        return {path for path, state in seen.states.items() if self._is_other(path, state, seen)}

    def accept(self, seen: Seen) -> None:
        """The next look compares with what this one has found."""
        self._folders = seen.folders
        for path, state in seen.states.items():
            if state is None:
                self._states.pop(path, None)
            else:
                self._states[path] = state

    def _is_other(self, path: str, state: FileState | None, seen: Seen) -> bool:
        return path in seen.went if state is None and path not in self._states else self._states.get(path) != state

    def _next(self) -> list[str]:
        if not self._turn:
            self._turn = list(self._states)
        chosen = self._turn[-_FILES_PER_LOOK:]
        del self._turn[-_FILES_PER_LOOK:]
        return chosen

    def _listed(self, *, every: bool) -> dict[str, _Folder]:
        """List the folders that may have changed; cyclic links are followed once."""
        found: dict[str, _Folder] = {}
        seen: set[tuple[int, int]] = set()
        stack = list(self._roots)
        while stack:
            path = stack.pop()
            try:
                info = os.stat(path)  # noqa: PTH116 - plain calls: this runs for every folder, every second
                if (info.st_dev, info.st_ino) in seen:
                    continue
                seen.add((info.st_dev, info.st_ino))
                known = self._folders.get(path)
                if every or known is None or not known.settled or known.mtime_ns != info.st_mtime_ns:
                    known = _list_one(path, info.st_mtime_ns)
            except OSError:
                continue  # removed meanwhile
            found[path] = known
            stack += known.folders
        return found


def _list_one(path: str, mtime_ns: int) -> _Folder:
    settled = time.time_ns() - mtime_ns > _SETTLED_SECONDS * 1e9
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if entry.is_dir() else files).append(entry.path)
    return _Folder(mtime_ns, settled, frozenset(files), tuple(folders))


def _other_files(folders: Mapping[str, _Folder], others: Mapping[str, _Folder]) -> frozenset[str]:
    """Return the files of folders that are not in the same ones of others."""
    pairs = ((found, others.get(path)) for path, found in folders.items())
    return frozenset[str]().union(
        *(found.files - (other.files if other else frozenset()) for found, other in pairs if found is not other)
    )
