"""`Downloads`: a cache of fetched images on disk that evicts the least recently used."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import xxhash

from calotype.errors import ConfigError
from calotype.images.cache_table import reason_of
from calotype.terminal import get_logger

__all__ = ["Downloads"]

_log = get_logger(__name__)

_STALE = 3600.0  # age in seconds of a temporary file whose writer was killed: writing one takes milliseconds
_PATIENCE = 60.0  # seconds to wait for transactions of other processes, each of which takes well under one

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    name TEXT PRIMARY KEY, bytes INTEGER NOT NULL, xxh3 BLOB NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_by_use ON entries (used);
CREATE TABLE IF NOT EXISTS total (one INTEGER PRIMARY KEY CHECK (one = 1), images INTEGER, bytes INTEGER);
INSERT OR IGNORE INTO total VALUES (1, 0, 0);
CREATE TRIGGER IF NOT EXISTS entry_added AFTER INSERT ON entries BEGIN
    UPDATE total SET images = images + 1, bytes = bytes + NEW.bytes; END;
CREATE TRIGGER IF NOT EXISTS entry_removed AFTER DELETE ON entries BEGIN
    UPDATE total SET images = images - 1, bytes = bytes - OLD.bytes; END;
"""


class Downloads:
    """A bounded cache of fetched files on disk: the original bytes, keyed by the hash of their URL.

    Safe for concurrent threads and processes of one machine. A killed process leaves no partial file: a file is renamed
    when it is complete and in the index, so the index counts every file. Reads verify length and checksum, and fetch
    again if they differ. The folder can be moved. It must be on a local disk: the index is an SQLite database with a
    write-ahead log, which does not work over NFS.

    Args:
        directory: Created if missing. Use a folder of its own.
        max_images: Most images in the cache; None for no limit.
        max_bytes: Most bytes in the cache, without the index; None for no limit. A longer image is returned and not
            cached.

    Raises:
        ConfigError: A limit is below 1, or the directory can't be written.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, max_images: int | None = None, max_bytes: int | None = None
    ) -> None:
        for name, limit in (("max_images", max_images), ("max_bytes", max_bytes)):
            if limit is not None and (not isinstance(limit, int) or limit < 1):
                raise ConfigError(f"{name}: expected a whole number above 0 or None, not {limit!r}")
        self.directory = Path(directory).expanduser().absolute()
        self.max_images = max_images
        self.max_bytes = max_bytes
        self._process = _Process()
        try:
            (self.directory / "tmp").mkdir(parents=True, exist_ok=True)
            self._sweep()
            with self._index():
                pass
        except (OSError, sqlite3.Error) as error:
            hint = "" if isinstance(error, OSError) else "; if its index is damaged, delete the folder"
            raise ConfigError(f"downloads: {self.directory} can't be used: {reason_of(error)}{hint}") from error

    def get(self, url: str, fetch: Callable[[str], bytes]) -> bytes:
        """Return the bytes of a URL from the cache, or of `fetch(url)`, which are then cached.

        Concurrent threads share one fetch of a URL, and its error.
        """
        name = _name(url)
        process = self._here()
        ours: Future[bytes] = Future()
        with process.lock:
            first = process.fetching.setdefault(name, ours)
        if first is not ours:
            return first.result()
        try:
            data = self._read(name)
            if data is None:
                data = fetch(url)
                self._store(name, data)
            ours.set_result(data)
            return data
        except BaseException as error:
            ours.set_exception(error)
            raise
        finally:
            with process.lock:
                del process.fetching[name]

    def __contains__(self, url: str) -> bool:
        return self._path(_name(url)).exists()

    def __len__(self) -> int:
        """Images in the cache, of all processes."""
        return self._total()[0]

    @property
    def total_bytes(self) -> int:
        """Bytes in the cache, of all processes."""
        return self._total()[1]

    def _total(self) -> tuple[int, int]:
        with self._index() as index:
            images, length = index.execute("SELECT images, bytes FROM total").fetchone()
        return images, length

    def _read(self, name: str) -> bytes | None:
        try:
            data = self._path(name).read_bytes()
        except OSError:
            return None
        try:
            with self._index() as index:
                row = index.execute(
                    "UPDATE entries SET used = ? WHERE name = ? RETURNING bytes, xxh3", (time.time_ns(), name)
                ).fetchone()
        except sqlite3.Error as error:
            self._warn("the index of downloads in %s can't be used: %s", error)
            return None
        if row is None or row != (len(data), _checksum(data)):
            return None  # evicted by another process, or damaged on disk
        return data

    def _store(self, name: str, data: bytes) -> None:
        """Store a file and evict others. An error of the disk is logged, and the image is not cached."""
        if self.max_bytes is not None and len(data) > self.max_bytes:
            return
        temporary = self.directory / "tmp" / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            temporary.write_bytes(data)
            with self._index() as index:
                index.execute("DELETE FROM entries WHERE name = ?", (name,))
                index.execute(
                    "INSERT INTO entries VALUES (?, ?, ?, ?)", (name, len(data), _checksum(data), time.time_ns())
                )
                self._evict(index)
            # A second transaction: a kill in between leaves a record without a file, and not the reverse.
            with self._index() as index:
                if index.execute("SELECT 1 FROM entries WHERE name = ?", (name,)).fetchone():
                    final = self._path(name)
                    final.parent.mkdir(exist_ok=True)
                    temporary.replace(final)
        except (OSError, sqlite3.Error) as error:
            self._warn("downloads are not cached in %s: %s", error)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _evict(self, index: sqlite3.Connection) -> None:
        while True:
            images, length = index.execute("SELECT images, bytes FROM total").fetchone()
            over_images = self.max_images is not None and images > self.max_images
            over_bytes = self.max_bytes is not None and length > self.max_bytes
            if not (over_images or over_bytes):
                return
            (oldest,) = index.execute("SELECT name FROM entries ORDER BY used, name LIMIT 1").fetchone()
            self._path(oldest).unlink(missing_ok=True)  # the file before its record: every file stays counted
            index.execute("DELETE FROM entries WHERE name = ?", (oldest,))

    def _warn(self, message: str, error: Exception) -> None:
        """Log a failure of the disk, once per process: the next image is likely to meet the same."""
        if not self._here().warned:
            self._here().warned = True
            _log.warning(message, self.directory, reason_of(error))

    def _sweep(self) -> None:
        """Remove temporary files of killed writers."""
        horizon = time.time() - _STALE
        for path in (self.directory / "tmp").iterdir():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < horizon:
                    path.unlink()

    def _path(self, name: str) -> Path:
        return self.directory / name[:2] / name[2:]

    @contextlib.contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction on the index that excludes other writers."""
        process = self._here()
        with process.index_lock:
            if process.index is None:
                process.index = _open_index(self.directory / "index.sqlite3")
            index = process.index
            index.execute("BEGIN IMMEDIATE")
            try:
                yield index
            except BaseException:
                index.execute("ROLLBACK")
                raise
            index.execute("COMMIT")

    def _here(self) -> _Process:
        """Return the state of this process: locks and SQLite connections must not cross a fork."""
        if self._process.owner != os.getpid():
            _inherited.append(self._process)
            self._process = _Process()
        return self._process

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "max_images": self.max_images, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._process = _Process()

    def __repr__(self) -> str:
        return f"Downloads({str(self.directory)!r}, max_images={self.max_images}, max_bytes={self.max_bytes})"


class _Process:
    """Locks, pending fetches and the index connection of one process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.fetching: dict[str, Future[bytes]] = {}
        self.index_lock = threading.Lock()
        self.index: sqlite3.Connection | None = None
        self.warned = False

    def __del__(self) -> None:
        if self.index is not None and self.owner == os.getpid():
            self.index.close()


_inherited: list[_Process] = []
"""Keeps a forked child from closing its parent's SQLite connection, which could delete the write-ahead log."""


def _open_index(path: Path) -> sqlite3.Connection:
    """Open with a write-ahead log and NORMAL: no flush per transaction, and consistent after a power cut."""
    index = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    index.execute("PRAGMA journal_mode = WAL")
    index.execute("PRAGMA synchronous = NORMAL")
    index.executescript(_SCHEMA)
    return index


def _name(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()


def _checksum(data: bytes) -> bytes:
    return xxhash.xxh3_64_digest(data)
