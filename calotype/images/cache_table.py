"""`CacheTable`: an SQLite table that caches facts about files from one run to the next."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from calotype.core.cache_folder import cache_folder
from calotype.core.file_state import FileState, file_holding, file_state
from calotype.terminal import get_logger
from calotype.types import ImageRef

__all__ = ["CacheTable", "Key", "file_keys", "reason_of"]

_log = get_logger(__name__)

_MOST: Final = 500
"""Names per query: twice as fast as single queries, and below SQLite's oldest limit of parameters."""

Key = tuple[Any, ...]
"""Two columns that identify an item, then the columns of its state."""


def file_keys(refs: Iterable[ImageRef]) -> list[Key | None]:
    """Return (path, part, *state of the file) of each image; an equal key means an unchanged image.

    None for URLs, whose changes only the server knows, and for missing files.
    """
    states: dict[str, FileState | None] = {}
    return [_file_key(ref, states) for ref in refs]


def _file_key(ref: ImageRef, states: dict[str, FileState | None]) -> Key | None:
    path = ref.path
    if path is None:
        return None
    if ref.key is None and ref.size is None:
        state = file_state(path)
        return None if state is None else (path, "", *state)
    if path not in states:  # one file has many images
        states[path] = file_state(file_holding(path, ref.key))
    state = states[path]
    if state is None:
        return None
    part = ref.key.hex() if ref.key is not None else f"{ref.offset}+{ref.size}"
    return path, part, *state


def reason_of(error: Exception) -> str:
    """Return the reason of an error of a disk, without the path: the message has it already."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


_reported: set[tuple[str, str]] = set()
"""(content, folder) of the warnings logged by this process."""


class CacheTable:
    """A table from keys to values, as a context manager. Safe for concurrent processes and threads.

    If the folder can't be written or the file is damaged, one warning is logged and nothing is cached.

    Args:
        folder: Folder below `$CALOTYPE_CACHE` (default `~/.cache/calotype`); its file has the same name.
        table: Name of the table. Use a new one when columns change.
        key: The two columns that identify an item.
        state: Columns that must be equal for values to be valid; a new state replaces the old one.
        values: Columns of the cached values.
        what: The content, for the warning: "image sizes".
        made_by: Adds a column of state with this value for all rows read and written.
    """

    def __init__(
        self,
        folder: str,
        table: str,
        *,
        key: tuple[str, str],
        state: Sequence[str],
        values: Sequence[str],
        what: str,
        made_by: str | None = None,
    ) -> None:
        self._folder, self._table, self._what = folder, table, what
        self._key, self._state, self._values = key, tuple(state), tuple(values)
        self._made_by = () if made_by is None else (made_by,)
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> CacheTable:
        directory = cache_folder(self._folder)
        with self._optional():
            directory.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(
                directory / f"{self._folder}.sqlite3", timeout=30.0, isolation_level=None, check_same_thread=False
            )
            self._database = database
            database.execute("PRAGMA synchronous = OFF")  # a power cut only costs cached values
            columns = (*self._key, *self._state, *self._values, *(("made_by",) if self._made_by else ()))
            database.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} ({', '.join(columns)}, "
                f"PRIMARY KEY ({', '.join(self._key)})) WITHOUT ROWID"
            )
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def get(self, keys: Sequence[Key | None]) -> list[tuple[Any, ...] | None]:
        """Return the values of each key, None where they are not cached."""
        found: list[tuple[Any, ...] | None] = [None] * len(keys)
        if self._database is None:
            return found
        with self._lock, self._optional():
            fixed, groups = _groups(keys)
            for value, indices in groups.items():
                names = list(indices)
                for start in range(0, len(names), _MOST):
                    self._find(fixed, value, names[start : start + _MOST], indices, keys, found)
            if sum(map(len, groups.values())) < len(keys):  # repeated keys; each group has the last index of a name
                for index, key in enumerate(keys):
                    if key is not None and keys[last := groups[key[fixed]][key[1 - fixed]]] == key:
                        found[index] = found[last]
        return found

    def put(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Store rows of key, state and values, in the order of the columns."""
        if self._database is None or not rows:
            return
        with self._lock, self._optional():
            self._database.execute("BEGIN IMMEDIATE")
            rows = [(*row, *self._made_by) for row in rows]
            marks = ", ".join("?" * len(rows[0]))
            self._database.executemany(f"INSERT OR REPLACE INTO {self._table} VALUES ({marks})", rows)
            self._database.execute("COMMIT")

    def drop(self, keys: Sequence[Key | None]) -> None:
        """Delete the rows of these keys, whatever their state."""
        names = [key[:2] for key in keys if key is not None]
        if self._database is None or not names:
            return
        with self._lock, self._optional():
            where = " AND ".join(f"{name} = ?" for name in self._key)
            self._database.executemany(f"DELETE FROM {self._table} WHERE {where}", names)

    def _find(
        self,
        fixed: int,
        value: Any,
        names: list[Any],
        indices: dict[Any, int],
        keys: Sequence[Key | None],
        found: list[tuple[Any, ...] | None],
    ) -> None:
        assert self._database is not None
        named = self._key[1 - fixed]
        statement = (
            f"SELECT {', '.join((named, *self._state, *self._values))} FROM {self._table} "
            f"WHERE {self._key[fixed]} = ? AND {named} IN ({', '.join('?' * len(names))})"
            f"{' AND made_by = ?' if self._made_by else ''}"
        )
        states = 1 + len(self._state)
        for row in self._database.execute(statement, (value, *names, *self._made_by)):
            index = indices[row[0]]
            key = keys[index]
            if key is not None and key[2:] == row[1:states]:
                found[index] = row[states:]

    @contextlib.contextmanager
    def _optional(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, UnicodeEncodeError) as error:
            directory = str(cache_folder(self._folder))
            if (self._what, directory) not in _reported:  # once per process
                _reported.add((self._what, directory))
                _log.warning(
                    "%s are not cached in %s: %s; CALOTYPE_CACHE can name another folder",
                    self._what,
                    directory,
                    reason_of(error),
                )
            if self._database is not None:
                self._database.close()
                self._database = None


def _groups(keys: Sequence[Key | None]) -> tuple[int, dict[Any, dict[Any, int]]]:
    """Return a key column, 0 or 1, and for each of its values the indices of the other column's values.

    So that few queries suffice: files have one part each, and form one group; so do the many parts of a shard.
    """
    known = [key for key in keys if key is not None]
    fixed = 1 if len({key[1] for key in known}) <= len({key[0] for key in known}) else 0
    groups: dict[Any, dict[Any, int]] = defaultdict(dict)
    for index, key in enumerate(keys):
        if key is not None:
            groups[key[fixed]][key[1 - fixed]] = index
    return fixed, groups
