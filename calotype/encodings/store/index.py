"""The index: key → position of every record, as sorted arrays for binary search, and the file that caches it.

`index.safetensors` lists the finished shards with their sizes and holds a checksum of itself. An index that does not
match is rebuilt from the shards. It is safe to delete.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from calotype.core.atomic import replace_file
from calotype.encodings.store.layout import KEY_BYTES, Layout
from calotype.encodings.store.shard import ALIGN, Group

__all__ = ["INDEX", "Contents", "IndexedShard", "Records", "comparable", "load_index", "save_index"]

INDEX: Final = "index.safetensors"
_MARK: Final = "calotype.index"
_VERSION: Final = "1"
_KEY: Final = np.dtype(f"S{KEY_BYTES}")  # compares like the 16 bytes do; both sides of a comparison are padded alike
_GROUP_COLUMNS: Final = 4


class Contents(NamedTuple):
    """Groups of one shard, and the keys (count, 16) of each group."""

    shard: str
    groups: Sequence[Group]
    keys: Sequence[NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """A table of records: a row is a record, located by its group and its slot in the group."""

    keys: NDArray[np.uint8]
    """(rows, 16)"""
    group: NDArray[np.uint32]
    """(rows,), into `groups`"""
    slot: NDArray[np.uint32]
    """(rows,): position in its group"""
    groups: NDArray[np.uint64]
    """(groups, 4): shard, layout, count, file offset"""
    shards: list[str]
    layouts: list[Layout]
    in_order: bool
    """Whether the rows are sorted by key."""
    alive: NDArray[np.bool_] = field(init=False)
    """(rows,): False for records that were dropped or whose shard was deleted."""
    verified: NDArray[np.uint64] = field(init=False)
    """(rows,): bit n is set once the checksum of field n was verified."""
    _order: list[tuple[NDArray[np.int64] | None, NDArray[Any]]] = field(init=False)
    """Cache of `_by_key`: empty, or one pair of the rows in key order (None: already sorted) and the sorted keys."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "alive", np.ones(len(self.keys), np.bool_))
        object.__setattr__(self, "verified", np.zeros(len(self.keys), np.uint64))
        object.__setattr__(self, "_order", [])

    def __len__(self) -> int:
        return len(self.keys)

    @staticmethod
    def of(contents: Sequence[Contents]) -> Records:
        """Return the table of these shards' records, in their order."""
        layouts: dict[Layout, int] = {}
        groups, keys = [], []
        for shard, part in enumerate(contents):
            for group, names in zip(part.groups, part.keys, strict=True):
                groups.append((shard, layouts.setdefault(group.layout, len(layouts)), group.count, group.offset))
                keys.append(names)
        counts = np.array([count for _, _, count, _ in groups], np.int64)
        starts = np.cumsum(counts) - counts
        return Records(
            keys=np.concatenate(keys) if keys else np.empty((0, KEY_BYTES), np.uint8),
            group=np.repeat(np.arange(len(groups), dtype=np.uint32), counts),
            slot=(np.arange(counts.sum()) - np.repeat(starts, counts)).astype(np.uint32),
            groups=np.array(groups, np.uint64).reshape(-1, _GROUP_COLUMNS),
            shards=[part.shard for part in contents],
            layouts=list(layouts),
            in_order=False,
        )

    @staticmethod
    def joined(one: Records, other: Records) -> Records:
        """Concatenate two tables, with the state of their rows."""
        shards = {name: number for number, name in enumerate(one.shards)}
        layouts = {layout: number for number, layout in enumerate(one.layouts)}
        to_shard = [shards.setdefault(name, len(shards)) for name in other.shards]
        to_layout = [layouts.setdefault(layout, len(layouts)) for layout in other.layouts]
        groups = other.groups.copy()
        if len(groups):
            groups[:, 0] = np.array(to_shard, np.uint64)[groups[:, 0].astype(np.int64)]
            groups[:, 1] = np.array(to_layout, np.uint64)[groups[:, 1].astype(np.int64)]
        records = Records(
            keys=np.concatenate([one.keys, other.keys]),
            group=np.concatenate([one.group, other.group + np.uint32(len(one.groups))]),
            slot=np.concatenate([one.slot, other.slot]),
            groups=np.concatenate([one.groups, groups]),
            shards=list(shards),
            layouts=list(layouts),
            in_order=False,
        )
        records.alive[:] = np.concatenate([one.alive, other.alive])
        records.verified[:] = np.concatenate([one.verified, other.verified])
        return records

    def sorted(self) -> Records:
        """Return the alive rows sorted by key, with only the groups and shards that they use."""
        rows = np.flatnonzero(self.alive)
        rows = rows[np.argsort(comparable(self.keys[rows]), kind="stable")]
        kept, group = np.unique(self.group[rows], return_inverse=True)
        groups = self.groups[kept]
        shards, groups[:, 0] = np.unique(groups[:, 0], return_inverse=True)
        layouts, groups[:, 1] = np.unique(groups[:, 1], return_inverse=True)
        return Records(
            keys=self.keys[rows],
            group=group.astype(np.uint32),
            slot=self.slot[rows],
            groups=groups,
            shards=[self.shards[int(number)] for number in shards],
            layouts=[self.layouts[int(number)] for number in layouts],
            in_order=True,
        )

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the row of each key (n, 16), or -1. Of several alive rows with one key, any."""
        order, known = self._by_key()
        wanted = comparable(keys)
        rows = np.full(len(wanted), -1, np.int64)
        by_key = np.argsort(wanted)
        at = np.empty(len(wanted), np.int64)
        at[by_key] = np.searchsorted(known, wanted[by_key])
        todo = np.arange(len(wanted))
        while len(todo):
            inside = at < len(known)
            todo, at = todo[inside], at[inside]
            same = known[at] == wanted[todo]
            todo, at = todo[same], at[same]
            row = at if order is None else order[at]
            hit = self.alive[row]
            rows[todo[hit]] = row[hit]
            todo, at = todo[~hit], at[~hit] + 1  # not alive: try the next row with an equal key
        return rows

    def find_one(self, key: bytes) -> int:
        """Return the row of one key, or -1: faster than `find` for a few keys."""
        order, known = self._by_key()
        at = int(known.searchsorted(np.frombuffer(key, _KEY))[0])
        while at < len(known):
            row = at if order is None else int(order[at])
            if self.keys[row].tobytes() != key:
                break
            if self.alive[row]:
                return row
            at += 1
        return -1

    def _by_key(self) -> tuple[NDArray[np.int64] | None, NDArray[Any]]:
        if not self._order:
            order = None if self.in_order else np.argsort(comparable(self.keys), kind="stable")
            self._order.append((order, comparable(self.keys if order is None else self.keys[order])))
        return self._order[0]

    def invalidate_shards(self, shards: Collection[str]) -> None:
        """Mark the records of these shards as not alive."""
        gone = [number for number, name in enumerate(self.shards) if name in shards]
        if gone:
            self.alive[np.isin(self.groups[:, 0], gone)[self.group]] = False

    def invalidate_records(self, dropped: Mapping[str, NDArray[np.uint8]]) -> None:
        """Mark records as not alive, by shard and keys (n, 16)."""
        for number, name in enumerate(self.shards):
            if name in dropped:
                rows = np.flatnonzero((self.groups[:, 0] == number)[self.group])
                rows = rows[np.isin(comparable(self.keys[rows]), comparable(dropped[name]))]
                self.alive[rows] = False


class IndexedShard(NamedTuple):
    """What the index stores about a shard."""

    size: int
    """Size of the shard's file."""
    groups: int
    """Number of complete groups."""
    damage: str | None
    """Why the shard is not complete; None if it is."""


def comparable(keys: NDArray[np.uint8]) -> NDArray[Any]:
    """Return keys (n, 16) as one value each (n,), to sort and compare them."""
    return np.ascontiguousarray(keys).view(_KEY).reshape(-1)


def save_index(path: Path, records: Records, shards: Mapping[str, IndexedShard]) -> None:
    """Write a sorted table to the index file, atomically.

    Args:
        path: The file.
        records: A result of `Records.sorted`.
        shards: The shards of the records.

    Raises:
        OSError: It can't be written.
    """
    columns: tuple[tuple[str, str, NDArray[Any]], ...] = (
        ("groups", "U64", records.groups),
        ("keys", "U8", records.keys),
        ("group", "U32", records.group),
        ("slot", "U32", records.slot),
    )
    entries: dict[str, Any] = {}
    at = 0
    for name, dtype, array in columns:
        entries[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    parts = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for _, _, array in columns]
    meaning = {
        "shards": [[name, *held] for name, held in shards.items()],
        "of": records.shards,
        "layouts": [layout.to_json() for layout in records.layouts],
    }
    text = json.dumps(meaning, separators=(",", ":"))
    metadata = {_MARK: _VERSION, "meaning": text, "checksum": _digest(text, parts)}
    head = json.dumps({"__metadata__": metadata} | entries, separators=(",", ":")).encode("ascii")
    head = head.ljust(-(-(len(head) + 8) // ALIGN) * ALIGN - 8)
    replace_file(path, [len(head).to_bytes(8, "little") + head, *parts])


def load_index(path: Path) -> tuple[Records, dict[str, IndexedShard]] | None:
    """Memory-map an index file: the table and its shards. None without a file, or with a damaged one."""
    try:
        mapped = np.memmap(path, np.uint8, "r").view(np.ndarray)
        length = int.from_bytes(mapped[:8], "little")
        header = json.loads(mapped[8 : 8 + length].tobytes())
        metadata = header.pop("__metadata__")
        if metadata[_MARK] != _VERSION:
            return None
        parts = {}
        for name, entry in header.items():
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            parts[name] = mapped[begin:end]
        if metadata["checksum"] != _digest(metadata["meaning"], list(parts.values())):
            return None
        meaning = json.loads(metadata["meaning"])
        records = Records(
            keys=parts["keys"].reshape(-1, KEY_BYTES),
            group=parts["group"].view(np.uint32),
            slot=parts["slot"].view(np.uint32),
            groups=parts["groups"].view(np.uint64).reshape(-1, _GROUP_COLUMNS),
            shards=meaning["of"],
            layouts=[Layout.from_json(entry) for entry in meaning["layouts"]],
            in_order=True,
        )
        return records, {name: IndexedShard(*held) for name, *held in meaning["shards"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _digest(text: str, parts: Sequence[NDArray[np.uint8]]) -> str:
    digest = xxhash.xxh3_64(text.encode("ascii"))
    for part in parts:
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
