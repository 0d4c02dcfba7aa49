"""What was found out about images, kept from one run to the next: a table in an SQLite file."""

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

__all__ = ["CacheTable", "Key", "file_keys"]

_log = get_logger(__name__)

_MOST: Final = 500
"""Names asked for at once: twice as fast as one statement each, and below the oldest limit of parameters."""

Key = tuple[Any, ...]
"""Two columns that name a thing, then those that tell whether it is still the same."""


def file_keys(refs: Iterable[ImageRef]) -> list[Key | None]:
    """(path, which part of it, *the file's state) of each image: while it is equal, so is the image.

    None for URLs, since only the server knows whether they changed, and for files that are not there.
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
    if path not in states:  # it holds many images
        states[path] = file_state(file_holding(path, ref.key))
    state = states[path]
    if state is None:
        return None
    part = ref.key.hex() if ref.key is not None else f"{ref.offset}+{ref.size}"
    return path, part, *state


_said: set[tuple[str, str]] = set()
"""What this process has said that it does not cache, and where."""


class CacheTable:
    """A table from keys to values. Shared by every process and thread; without it everything still works.

    A folder that can't be written or a damaged file costs the memory, with one warning in the log, and nothing else.

    Args:
        room: Folder below `$CALOTYPE_CACHE` (else `~/.cache/calotype`); the file in it has the same name.
        table: Name of the table. One whose columns change gets another.
        key: The two columns that name a thing.
        state: Columns that must be equal for what is remembered to hold; a thing in a new state takes the old's place.
        values: Columns of what is remembered.
        what: What is lost when it can't be kept, for the log: "image sizes".
        made_by: Gives the table one more column of state, with this value for everything recalled and learnt.
    """

    def __init__(
        self,
        room: str,
        table: str,
        *,
        key: tuple[str, str],
        state: Sequence[str],
        values: Sequence[str],
        what: str,
        made_by: str | None = None,
    ) -> None:
        self._room, self._table, self._what = room, table, what
        self._key, self._state, self._values = key, tuple(state), tuple(values)
        self._made_by = () if made_by is None else (made_by,)
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> CacheTable:
        directory = cache_folder(self._room)
        with self._optional():
            directory.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(
                directory / f"{self._room}.sqlite3", timeout=30.0, isolation_level=None, check_same_thread=False
            )
            self._database = database
            database.execute("PRAGMA synchronous = OFF")  # what a power cut takes is only found out again
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
        """The values for each key, None where they are not known."""
        found: list[tuple[Any, ...] | None] = [None] * len(keys)
        if self._database is None:
            return found
        with self._lock, self._optional():
            fixed, groups = _groups(keys)
            for value, places in groups.items():
                names = list(places)
                for start in range(0, len(names), _MOST):
                    self._find(fixed, value, names[start : start + _MOST], places, keys, found)
            if sum(map(len, groups.values())) < len(keys):  # some came twice; each group has the last place of a name
                for place, key in enumerate(keys):
                    if key is not None and keys[last := groups[key[fixed]][key[1 - fixed]]] == key:
                        found[place] = found[last]
        return found

    def put(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Keeps rows of key, state and values, in the order of the columns."""
        if self._database is None or not rows:
            return
        with self._lock, self._optional():
            self._database.execute("BEGIN IMMEDIATE")
            rows = [(*row, *self._made_by) for row in rows]
            marks = ", ".join("?" * len(rows[0]))
            self._database.executemany(f"INSERT OR REPLACE INTO {self._table} VALUES ({marks})", rows)
            self._database.execute("COMMIT")

    def _find(
        self,
        fixed: int,
        value: Any,
        names: list[Any],
        places: dict[Any, int],
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
            place = places[row[0]]
            key = keys[place]
            if key is not None and key[2:] == row[1:states]:
                found[place] = row[states:]

    @contextlib.contextmanager
    def _optional(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, UnicodeEncodeError) as error:
            place = str(cache_folder(self._room))
            if (self._what, place) not in _said:  # once, and not for each scan
                _said.add((self._what, place))
                _log.warning("%s are not cached in %s: %s", self._what, place, error)
            if self._database is not None:
                self._database.close()
                self._database = None


def _groups(keys: Sequence[Key | None]) -> tuple[int, dict[Any, dict[Any, int]]]:
    """Which key column to hold fixed, and for each value of it where the other's values are wanted.

    Files have one part each, so they are one group, asked for with few statements; so is a shard with its many parts.
    """
    known = [key for key in keys if key is not None]
    fixed = 1 if len({key[1] for key in known}) <= len({key[0] for key in known}) else 0
    groups: dict[Any, dict[Any, int]] = defaultdict(dict)
    for place, key in enumerate(keys):
        if key is not None:
            groups[key[fixed]][key[1 - fixed]] = place
    return fixed, groups
