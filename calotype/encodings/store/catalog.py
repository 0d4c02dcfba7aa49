"""`ShardCatalog`: the records of a store's shards, from their headers. Only new groups of a shard are read again."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from calotype.encodings.store.index import INDEX, Contents, IndexedShard, Records, load_index, save_index
from calotype.encodings.store.open_files import OpenFiles
from calotype.encodings.store.shard import ShardFile, list_shards, read_header, read_keys
from calotype.encodings.store.writer import Put
from calotype.errors import StoreError
from calotype.terminal import get_logger

__all__ = ["ShardCatalog"]

_log = get_logger(__name__)

_WORTH_SAVING: Final = 50
"""The index is rewritten once it lacks more than 1/50 of its number of records."""


class ShardCatalog:
    """The shards of one store, and how many groups of each have been read.

    Args:
        path: The store's folder.
        shards: Folder of its shards; it may be missing.
        files: Opens the shards.
    """

    def __init__(self, path: Path, shards: Path, files: OpenFiles) -> None:
        self._path, self._shards, self._files = path, shards, files
        self._groups: dict[str, int] = {}
        self._finished: set[str] = set()
        self.damaged: dict[str, str] = {}
        """Shards that can't be read completely → reason."""

    def open(self) -> tuple[Records, Records]:
        """Return the records of the finished shards: those of the index, and those that it does not list yet.

        An index that lacks many is rewritten; the second table is then empty.
        """
        finished = {name: shard for name, shard in self._list().items() if not shard.open}
        base, held = load_index(self._path / INDEX) or (Records.of([]), {})
        stale = {name for name, about in held.items() if name not in finished or finished[name].size != about.size}
        base.invalidate_shards(stale)
        for name in held.keys() - stale:
            self._groups[name] = held[name].groups
            self._finished.add(name)
            if damage := held[name].damage:
                self._report(name, damage)
        new = Records.of(self._scan(finished))
        if not stale and len(new) * _WORTH_SAVING <= len(base):
            return base, new
        base = Records.joined(base, new).sorted()
        known = {
            n: IndexedShard(finished[n].size, self._groups[n], self.damaged.get(n)) for n in sorted(self._finished)
        }
        with suppress(OSError):  # a read-only folder is not an error
            save_index(self._path / INDEX, base, known)
        return base, Records.of([])

    def changes(self) -> tuple[list[Contents], list[str]]:
        """Return the groups that were added since the last call, and the shards that were deleted."""
        shards = self._list()
        contents = self._scan(shards)
        gone = [name for name in self._groups if name not in shards]
        for name in gone:
            del self._groups[name]
            self._finished.discard(name)
        return contents, gone

    def add_put(self, put: Put) -> Contents | None:
        """Add the groups of a put by a writer of this process; None if `changes` has returned or will return them."""
        if self._groups.get(put.shard, 0) != put.first:
            return None
        self._groups[put.shard] = put.first + len(put.groups)
        return Contents(put.shard, put.groups, put.keys)

    def _list(self) -> Mapping[str, ShardFile]:
        return list_shards(self._shards) if self._shards.is_dir() else {}

    def _scan(self, shards: Mapping[str, ShardFile]) -> list[Contents]:
        todo = [name for name in shards if name not in self._finished and name not in self.damaged]
        with ThreadPoolExecutor(8) as pool:  # mostly waiting, on a network file system
            found = list(pool.map(lambda name: self._scan_one(name, shards[name]), todo))
        return [contents for contents in found if contents is not None]

    def _scan_one(self, name: str, shard: ShardFile) -> Contents | None:
        known = self._groups.get(name, 0)
        try:
            file = self._files.open(name)
            header = read_header(file.fd, shard.path)
            whole = [group for group in header.groups if group.data_end <= header.size]
            keys = [read_keys(file.fd, group) for group in whole[known:]]
        except FileNotFoundError:
            return None
        except (StoreError, OSError) as error:
            self._report(name, str(error))
            return None
        if len(whole) < len(header.groups):
            lost = sum(group.count for group in header.groups[len(whole) :])
            self._report(name, f"{shard.path}: this shard is truncated, {lost} of its records are lost")
        self._groups[name] = len(whole)
        if not shard.open:
            self._finished.add(name)
        return Contents(name, whole[known:], keys) if keys else None

    def _report(self, shard: str, what: str) -> None:
        self.damaged[shard] = what
        _log.warning("%s", what)
