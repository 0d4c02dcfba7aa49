"""Shards open for reading: a bounded number of file descriptors, each open while it is in use."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from calotype.encodings.store.layout import Field
from calotype.encodings.store.shard import FINISHED, OPEN
from calotype.images.locks import ForkSafeLock

__all__ = ["OpenFile", "OpenFiles", "ShardOffset", "TensorLocation"]

_FEWEST: Final = 64
_lock: Final = ForkSafeLock()  # one for all folders: it is held for microseconds


class OpenFile:
    """A file descriptor that is closed when the object is garbage-collected."""

    __slots__ = ("fd",)

    def __init__(self, path: Path) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        if self.fd >= 0:
            _close(self.fd)  # a default argument: module globals may be gone at interpreter shutdown


class TensorLocation(NamedTuple):
    """The file, offset and length of one tensor of a record."""

    file: OpenFile
    """Its descriptor, `file.fd`, stays open as long as a reference to the file exists."""
    offset: int
    nbytes: int
    field: Field


class ShardOffset(NamedTuple):
    """The shard and offset of a tensor. Unlike a `TensorLocation` it keeps no file open, so many can be cached."""

    shard: str
    offset: int


class OpenFiles:
    """Opens shards on demand and caches the descriptors, up to half of the process's limit."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._most = max(_FEWEST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._files: dict[str, OpenFile] = {}

    def get(self, shard: str) -> OpenFile:
        """Return a shard by name, finished or still being written, from the cache of open files.

        Raises:
            FileNotFoundError: There is no such shard.
        """
        file = self._files.get(shard)
        if file is None:
            file = self.open(shard)
            with _lock:
                # Evicts the oldest. A loader reads in random order, for which no policy is better than another.
                while len(self._files) >= self._most:
                    self._files.pop(next(iter(self._files)))
                self._files[shard] = file
        return file

    def open(self, shard: str) -> OpenFile:
        """Open a shard by name, outside of the cache.

        Raises:
            FileNotFoundError: There is no such shard.
        """
        for ending in (FINISHED, OPEN, FINISHED):  # it may be finished between the first two
            try:
                return OpenFile(self._folder / f"{shard}{ending}")
            except FileNotFoundError:
                continue
        raise FileNotFoundError(shard)
