"""`scan_sizes`: the (height, width) of every picture from its header, remembered from one run to the next."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from calotype.errors import ImageError
from calotype.images.read import ImageReader
from calotype.types import ImageRef

__all__ = ["scan_sizes"]

_log = logging.getLogger(__name__)

_CHUNK: Final = 256
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sizes (
    path TEXT, part TEXT, bytes INTEGER, mtime_ns INTEGER, height INTEGER, width INTEGER, PRIMARY KEY (path, part)
) WITHOUT ROWID
"""
_RECALL: Final = "SELECT height, width FROM sizes WHERE path = ? AND part = ? AND bytes = ? AND mtime_ns = ?"

Key = tuple[str, str, int, int]
"""(path, which part of it, its bytes, its mtime in ns)"""


def scan_sizes(
    refs: Iterable[ImageRef],
    reader: ImageReader,
    *,
    threads: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[npt.NDArray[np.int32], list[tuple[int, ImageError]]]:
    """Reads the sizes of many pictures; a second run asks the file system only whether the files are still the same.

    Sizes are remembered by path, length and time of change, in `$CALOTYPE_CACHE/sizes` (else
    `~/.cache/calotype/sizes`); those of URLs are not, since only the server knows whether they changed. Reading a
    URL's size fetches the picture (and keeps it where the reader's fetcher has downloads).

    Args:
        refs: The pictures.
        reader: Reads the headers.
        threads: They help where files or servers are slow to answer; parsing itself is held by the GIL.
        progress: Called now and then, in the caller's thread, with (pictures done, pictures in all).

    Returns:
        int32 (N, 2) of (H, W) upright, 0 where a picture can't be read; and those pictures' (index, error), in order.

    Raises:
        MissingDependencyError: A picture needs an extra that is not installed.
    """
    refs = refs if isinstance(refs, Sequence) else list(refs)
    sizes = np.zeros((len(refs), 2), np.int32)
    errors: list[tuple[int, ImageError]] = []
    with _Memory() as memory, ThreadPoolExecutor(threads, thread_name_prefix="calotype-sizes") as pool:
        done = 0
        for start in range(0, len(refs), _CHUNK * threads):
            chunk = [refs[index] for index in range(start, min(start + _CHUNK * threads, len(refs)))]
            keys = _keys(chunk)
            found = memory.recall(keys)
            missing = [
                index for index, size in enumerate(found) if size is None or size[0] * size[1] > reader.max_pixels
            ]
            learnt = []
            read = pool.map(lambda ref: _size(reader, ref), [chunk[index] for index in missing])
            for index, size in zip(missing, read, strict=True):
                if isinstance(size, ImageError):
                    errors.append((start + index, size))
                    found[index] = None
                    continue
                found[index] = size
                key = keys[index]
                if key is not None:
                    learnt.append((*key, *size))
            memory.learn(learnt)
            sizes[start : start + len(chunk)] = [size or (0, 0) for size in found]
            done += len(chunk)
            if progress is not None:
                progress(done, len(refs))
    return sizes, errors


def _size(reader: ImageReader, ref: ImageRef) -> tuple[int, int] | ImageError:
    try:
        return reader.size(ref)
    except ImageError as error:
        return error


def _keys(refs: list[ImageRef]) -> list[Key | None]:
    """What identifies each picture's present content; None for URLs and files that are not there."""
    stats: dict[str, os.stat_result | None] = {}
    return [_key(ref, stats) for ref in refs]


def _key(ref: ImageRef, stats: dict[str, os.stat_result | None]) -> Key | None:
    path = ref.path
    if path is None:
        return None
    if path not in stats:  # a shard holds many pictures
        stats[path] = None
        with contextlib.suppress(OSError, ValueError):
            file = Path(path)
            stats[path] = (file / "data.mdb" if ref.key is not None and file.is_dir() else file).stat()
    info = stats[path]
    if info is None:
        return None
    part = ref.key.hex() if ref.key is not None else "" if ref.size is None else f"{ref.offset}+{ref.size}"
    return path, part, info.st_size, info.st_mtime_ns


class _Memory:
    """The remembered sizes: one SQLite file, shared by every process; without it everything still works."""

    def __init__(self) -> None:
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> _Memory:
        home = os.environ.get("CALOTYPE_CACHE")
        directory = Path(home).expanduser() if home else Path.home() / ".cache" / "calotype"
        with self._optional():
            (directory / "sizes").mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(directory / "sizes" / "sizes.sqlite3", timeout=30.0, isolation_level=None)
            self._database = database
            database.execute("PRAGMA synchronous = OFF")  # what a power cut takes is only read again
            database.execute(_SCHEMA)
        return self

    def __exit__(self, *_: object) -> None:
        if self._database is not None:
            self._database.close()

    def recall(self, keys: list[Key | None]) -> list[tuple[int, int] | None]:
        """(H, W) for each key, None where it is not known."""
        found: list[tuple[int, int] | None] = [None] * len(keys)
        with self._optional():
            if self._database is not None:
                for index, key in enumerate(keys):
                    if key is not None:
                        found[index] = self._database.execute(_RECALL, key).fetchone()
        return found

    def learn(self, rows: list[tuple[str, str, int, int, int, int]]) -> None:
        with self._optional():
            if self._database is not None and rows:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany("INSERT OR REPLACE INTO sizes VALUES (?, ?, ?, ?, ?, ?)", rows)
                self._database.execute("COMMIT")

    @contextlib.contextmanager
    def _optional(self) -> Iterator[None]:
        """A folder that can't be written or a damaged file costs the memory, not the scan."""
        try:
            yield
        except (OSError, sqlite3.Error, UnicodeEncodeError) as error:
            _log.warning("image sizes are not remembered: %s", error)
            if self._database is not None:
                self._database.close()
                self._database = None
