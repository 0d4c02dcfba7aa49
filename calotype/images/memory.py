"""What was found out about pictures, kept from one run to the next: a table in an SQLite file."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from calotype.types import ImageRef

__all__ = ["Key", "Memory", "file_keys"]

_log = logging.getLogger(__name__)

_MOST: Final = 500
"""Names asked for at once: twice as fast as one statement each, and below the oldest limit of parameters."""

Key = tuple[Any, ...]
"""Two columns that name a thing, then those that tell whether it is still the same."""


def file_keys(refs: Iterable[ImageRef]) -> list[tuple[str, str, int, int] | None]:
    """(path, which part of it, its bytes, its mtime in ns) of each picture: while it is equal, so is the picture.

    None for URLs, since only the server knows whether they changed, and for files that are not there.
    """
    stats: dict[str, os.stat_result | None] = {}
    return [_file_key(ref, stats) for ref in refs]


def _file_key(ref: ImageRef, stats: dict[str, os.stat_result | None]) -> tuple[str, str, int, int] | None:
    path = ref.path
    if path is None:
        return None
    if path in stats:  # a shard holds many pictures
        info = stats[path]
    else:
        try:
            place = path
            if ref.key is not None and Path(path).is_dir():  # LMDB
                place = f"{path}/data.mdb"
            info = os.stat(place)  # noqa: PTH116 - a Path for each of 100,000 pictures costs half a second
        except (OSError, ValueError):
            info = None
        stats[path] = info
    if info is None:
        return None
    part = ref.key.hex() if ref.key is not None else "" if ref.size is None else f"{ref.offset}+{ref.size}"
    return path, part, info.st_size, info.st_mtime_ns


class Memory:
    """A table from keys to values. Shared by every process and thread; without it everything still works.

    A folder that can't be written or a damaged file costs the memory, with one warning in the log, and nothing else.

    Args:
        room: Folder below `$CALOTYPE_CACHE` (else `~/.cache/calotype`); the file in it has the same name.
        table: Name of the table. One whose columns change gets another.
        key: The two columns that name a thing.
        state: Columns that must be equal for what is remembered to hold; a thing in a new state takes the old's place.
        values: Columns of what is remembered.
        what: What is lost when it can't be kept, for the log: "image sizes".
    """

    def __init__(
        self, room: str, table: str, *, key: tuple[str, str], state: Sequence[str], values: Sequence[str], what: str
    ) -> None:
        self._room, self._table, self._what = room, table, what
        self._key, self._states = key, 2 + len(state)
        self._columns = (*key, *state, *values)
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> Memory:
        home = os.environ.get("CALOTYPE_CACHE")
        directory = (Path(home).expanduser() if home else Path.home() / ".cache" / "calotype") / self._room
        with self._optional():
            directory.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(
                directory / f"{self._room}.sqlite3", timeout=30.0, isolation_level=None, check_same_thread=False
            )
            self._database = database
            database.execute("PRAGMA synchronous = OFF")  # what a power cut takes is only found out again
            database.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} ({', '.join(self._columns)}, "
                f"PRIMARY KEY ({', '.join(self._key)})) WITHOUT ROWID"
            )
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def recall(self, keys: Sequence[Key | None]) -> list[tuple[Any, ...] | None]:
        """The values for each key, None where they are not known."""
        found: dict[Key, tuple[Any, ...]] = {}
        if self._database is not None:
            with self._lock, self._optional():
                wanted = {key[:2] for key in keys if key is not None}
                for fixed, value, names in self._groups(wanted):
                    found.update(self._find(fixed, value, names))
        return [None if key is None else found.get(key) for key in keys]

    def learn(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Keeps rows of key, state and values, in the order of the columns."""
        if self._database is None or not rows:
            return
        with self._lock, self._optional():
            self._database.execute("BEGIN IMMEDIATE")
            marks = ", ".join("?" * len(self._columns))
            self._database.executemany(f"INSERT OR REPLACE INTO {self._table} VALUES ({marks})", rows)
            self._database.execute("COMMIT")

    def _groups(self, wanted: set[Key]) -> Iterator[tuple[int, Any, list[Any]]]:
        """Which key column to hold fixed at which value, and what to ask of the other: the fewest statements.

        Files have one part each, so it is one group; so is a shard with its many parts.
        """
        fixed = 1 if len({part for _, part in wanted}) <= len({name for name, _ in wanted}) else 0
        groups: dict[Any, list[Any]] = defaultdict(list)
        for pair in wanted:
            groups[pair[fixed]].append(pair[1 - fixed])
        for value, names in groups.items():
            for start in range(0, len(names), _MOST):
                yield fixed, value, names[start : start + _MOST]

    def _find(self, fixed: int, value: Any, names: list[Any]) -> Iterator[tuple[Key, tuple[Any, ...]]]:
        assert self._database is not None
        statement = (
            f"SELECT {', '.join(self._columns)} FROM {self._table} "
            f"WHERE {self._key[fixed]} = ? AND {self._key[1 - fixed]} IN ({', '.join('?' * len(names))})"
        )
        states = self._states
        for row in self._database.execute(statement, (value, *names)):
            yield row[:states], row[states:]

    @contextlib.contextmanager
    def _optional(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, UnicodeEncodeError) as error:
            _log.warning("%s are not remembered: %s", self._what, error)
            if self._database is not None:
                self._database.close()
                self._database = None
