"""Shards open for reading: a bounded number of descriptors, each open for as long as somebody reads with it."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from calotype.encodings.store.layout import Field
from calotype.encodings.store.shard import FINISHED, OPEN
from calotype.images.locks import ForkSafeLock

__all__ = ["OpenFile", "OpenFiles", "Place", "Spot"]

_FEWEST: Final = 64
_lock: Final = ForkSafeLock()  # one for all folders: it is held for next to no time


class OpenFile:
    """A file descriptor that closes when nobody refers to it any more."""

    __slots__ = ("fd",)

    def __init__(self, path: Path) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        if self.fd >= 0:
            _close(self.fd)  # bound above: the module is gone by the time an interpreter that ends gets here


class Place(NamedTuple):
    """Where the bytes of one tensor of a record are."""

    file: OpenFile
    """Its descriptor is `file.fd`; it stays open as long as somebody holds the file."""
    offset: int
    nbytes: int
    field: Field


class Spot(NamedTuple):
    """A place by its shard's name, for those who remember many: no file stays open for it."""

    shard: str
    offset: int


class OpenFiles:
    """Opens the shards of a folder when they are asked for; up to half of the descriptors a process may have."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._most = max(_FEWEST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._files: dict[str, OpenFile] = {}

    def get(self, shard: str) -> OpenFile:
        """The shard of this name, finished or still open.

        Raises:
            FileNotFoundError: It is gone.
        """
        file = self._files.get(shard)
        if file is None:
            file = self.open(shard)
            with _lock:
                # Who is thrown out matters little: a loader's order is random, and then no rule beats another.
                while len(self._files) >= self._most:
                    self._files.pop(next(iter(self._files)))
                self._files[shard] = file
        return file

    def open(self, shard: str) -> OpenFile:
        """A descriptor of its own.

        Raises:
            FileNotFoundError: It is gone.
        """
        for ending in (FINISHED, OPEN, FINISHED):  # it may be finished between the first two
            try:
                return OpenFile(self._folder / f"{shard}{ending}")
            except FileNotFoundError:
                continue
        raise FileNotFoundError(shard)
