"""The store: what the frozen models gave, found by key and read straight into the memory that wants it.

store/
  format.json                      {"format": 1}
  shards/<name>.safetensors        finished shards
  shards/<name>.open.safetensors   being written, or left by a writer that died
  dropped/<name>.json              records that are not to be used any more
  index.safetensors                what the finished shards hold; a cache
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from calotype.encodings.store.catalog import ShardCatalog
from calotype.encodings.store.dropped import read_dropped, write_dropped
from calotype.encodings.store.files import cannot_write
from calotype.encodings.store.folder import check_format, create_folder
from calotype.encodings.store.index import Contents, Records
from calotype.encodings.store.layout import KEY_BYTES, Field, Layout, as_keys, checksum, memory_of
from calotype.encodings.store.open_files import OpenFiles, Place, Spot
from calotype.encodings.store.recovery import finish_dead_writers
from calotype.encodings.store.writer import HEADER_BYTES, SHARD_BYTES, Put, ShardWriter
from calotype.errors import ConfigError, StoreError

__all__ = ["EncodingStore", "Verify"]

Verify = Literal["first", "always", "never"]


class EncodingStore:
    """A folder of records, each a few named tensors under a 16-byte key.

    Keys are hashes of all that could change a record, so a record is never changed, only added; `find` gives the row of
    a key, and everything else goes by row. A row means something only in the object that gave it (another process asks
    for its own), and keeps its meaning there through `refresh`.

    Threads may share a store. A pickled store opens the folder again where it arrives.

    Args:
        path: The folder.
        create: Make it if it is not there.
        verify: When to hold a tensor's bytes against their checksum: the first time that this object reads it, always,
            or never.

    Raises:
        StoreError: There is no store.
        NewerFormatError: It is one of a newer calotype.
    """

    def __init__(self, path: str | Path, *, create: bool = False, verify: Verify = "first") -> None:
        if verify not in get_args(Verify):
            raise ConfigError(f"verify: found {verify!r}, expected one of {', '.join(map(repr, get_args(Verify)))}")
        self.path = Path(path)
        self.verify = verify
        if create:
            create_folder(self.path)
        check_format(self.path)
        self._lock = threading.RLock()
        _stores.add(self)
        self._files = OpenFiles(self._shards)
        self._disk = ShardCatalog(self.path, self._shards, self._files)
        self.dropped: dict[str, NDArray[np.uint8]] = {}
        """By shard, the keys (n, 16) of records that are not to be used any more."""
        self._dropped_files: set[str] = set()
        self._moved: dict[int, int] = {}
        self._unsorted: list[Contents] = []
        """What came since; joined to `_later` when somebody looks for something: a long job's puts are many."""
        self._base, self._later = self._disk.open()
        self.refresh()

    @property
    def damaged(self) -> Mapping[str, str]:
        """Shards that can't be read whole, and why; their lost records are not found, and so encoded again."""
        return self._disk.damaged

    @property
    def _shards(self) -> Path:
        return self.path / "shards"

    @property
    def _more(self) -> Records:
        """What is not in `_base`."""
        if self._unsorted:
            with self._lock:
                self._later = Records.joined(self._later, Records.of(self._unsorted))
                self._unsorted = []
        return self._later

    def __len__(self) -> int:
        """Records that can be found (equal keys written twice count twice)."""
        return int(self._base.alive.sum() + self._more.alive.sum())

    def __reduce__(self) -> Any:
        return _reopen, (type(self), self.path.absolute(), self.verify)

    # ---- finding

    def find(self, keys: Iterable[bytes] | NDArray[np.uint8]) -> NDArray[np.int64]:
        """The row of each key, -1 where there is none.

        Args:
            keys: 16 bytes each, or an array (n, 16) of uint8.
        """
        wanted = as_keys(keys)
        base, more = self._base, self._more
        rows = base.find(wanted)
        if len(more):
            missing = np.flatnonzero(rows < 0)
            found = more.find(wanted[missing])
            rows[missing] = np.where(found < 0, -1, found + len(base))
        return rows

    def find_one(self, key: bytes) -> int:
        """The row of one key of 16 bytes, -1 where there is none: quicker than `find` for a few."""
        base, more = self._base, self._more
        row = base.find_one(key)
        if row < 0 and (row := more.find_one(key)) >= 0:
            row += len(base)
        return row

    def rows(self, kind: str | None = None) -> NDArray[np.int64]:
        """All rows that can be found, of one kind if it is given; in the order of shards and places there."""
        rank = {name: number for number, name in enumerate(sorted({*self._base.shards, *self._more.shards}))}
        rows, places = [], []
        for start, part in ((0, self._base), (len(self._base), self._more)):
            of_kind = np.array([kind in (None, layout.kind) for layout in part.layouts], np.bool_)
            living = np.flatnonzero(part.alive & of_kind[part.groups[:, 1].astype(np.int64)][part.group])
            shards = np.array([rank[name] for name in part.shards], np.int64)
            group = part.groups[part.group[living]].astype(np.int64)
            rows.append(living + start)
            places.append((part.slot[living], group[:, 3], shards[group[:, 0]]))
        slots, offsets, shards = (np.concatenate(column) for column in zip(*places, strict=True))
        return np.concatenate(rows)[np.lexsort((slots, offsets, shards))]

    def keys(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The keys (n, 16) of rows."""
        rows = np.asarray(rows, np.int64)
        keys = np.empty((len(rows), KEY_BYTES), np.uint8)
        base = rows < len(self._base)
        keys[base] = self._base.keys[rows[base]]
        keys[~base] = self._more.keys[rows[~base] - len(self._base)]
        return keys

    def has(self, key: bytes) -> bool:
        """Whether there is a record of this key."""
        return bool(self.find([key])[0] >= 0)

    def layout(self, row: int) -> tuple[Field, ...]:
        """The tensors of a record, without reading it."""
        return self._layout(row).fields

    def kind(self, row: int) -> str:
        """What a record is of: `text`, `picture`, …"""
        return self._layout(row).kind

    def _layout(self, row: int) -> Layout:
        part, row = self._part(row)
        return part.layouts[int(part.groups[part.group[row], 1])]

    def layouts(self, rows: NDArray[np.int64]) -> tuple[list[Layout], NDArray[np.int64]]:
        """The layouts of many records: those there are, and for each row which of them (n,)."""
        rows = np.asarray(rows, np.int64)
        base, more = self._base, self._more
        there = rows >= len(base)
        which = np.empty(len(rows), np.int64)
        which[~there] = base.groups[base.group[rows[~there]], 1]
        which[there] = more.groups[more.group[rows[there] - len(base)], 1] + np.uint64(len(base.layouts))
        return [*base.layouts, *more.layouts], which

    def shard(self, row: int) -> str:
        """The name of the shard that holds a record, without ending."""
        return self._shard_of(*self._part(row))

    def _shard_of(self, part: Records, row: int) -> str:
        return part.shards[int(part.groups[part.group[row], 0])]

    def _part(self, row: int) -> tuple[Records, int]:
        if row < 0:
            raise IndexError(f"row {row}: a record that was not found has no row")
        base = self._base
        return (base, row) if row < len(base) else (self._more, row - len(base))

    # ---- reading

    def locate(self, row: int, field: str) -> Place:
        """Where a tensor's bytes are, for those who read them their own way; nothing is verified.

        Raises:
            StoreError: The record has no such tensor, or its shard is gone.
        """
        return self._place(row, field)[0]

    def read_into(self, row: int, field: str, out: torch.Tensor) -> None:
        """Reads one tensor of a record straight into the memory of another, without the interpreter's lock.

        Args:
            row: From `find`.
            field: The tensor's name.
            out: On the CPU, contiguous, of its dtype and shape.

        Raises:
            StoreError: The shard is damaged or gone, the bytes are not those that were written, or `out` is not of the
                tensor's dtype and shape.
        """
        found = self._place(row, field)
        wanted = found[0].field
        if out.dtype != wanted.dtype or out.shape != wanted.shape or not out.is_contiguous() or not out.is_cpu:
            strided = "" if out.is_contiguous() else ", not contiguous"
            raise StoreError(
                f"{field}: found a tensor of {out.dtype}, {tuple(out.shape)}, on {out.device}{strided}, to read it "
                f"into; expected {wanted.dtype}, {wanted.shape}, on the CPU, contiguous"
            )
        self._read(*found, memory_of(out))

    def read_bytes(self, row: int, field: str, data: memoryview) -> Spot | None:
        """As `read_into`, into bare memory of the tensor's size; says where it is, if that is worth remembering.

        Raises:
            StoreError: The shard is damaged or gone, or the bytes are not those that were written.
        """
        return self._read(*self._place(row, field), data)

    def _read(self, place: Place, part: Records, row: int, number: int, data: memoryview) -> Spot | None:
        self._fill(part, row, place, data)
        if self.verify == "never":
            return Spot(self._shard_of(part, row), place.offset)
        if self.verify == "always" or not part.verified.item(row) >> number & 1:
            _, which, count, offset = part.groups[part.group.item(row)].tolist()
            layout = part.layouts[which]
            table = offset + count * layout.nbytes + part.slot.item(row) * layout.table_width
            expected = bytearray(8)
            self._fill(part, row, Place(place.file, table + KEY_BYTES + 8 * number, 8, place.field), expected)
            if checksum(part.keys[row].tobytes(), layout.seeds[number], data) != int.from_bytes(expected, "little"):
                raise self._damage(part, row, f"its {place.field.name} is not what was written: the checksum differs")
            part.verified[row] |= np.uint64(1 << number)
        return None if self.verify == "always" else Spot(self._shard_of(part, row), place.offset)

    def read_spot(self, spot: Spot, data: memoryview) -> bool:
        """Reads what `read_bytes` found once, with nothing in between; False where it can't, and `read_bytes` says why.

        No checksum is asked for: it was right, or nobody wanted it.
        """
        try:
            return os.preadv(self._files.get(spot.shard).fd, (data,), spot.offset) == len(data)
        except OSError:
            return False

    def get(self, row: int) -> dict[str, torch.Tensor]:
        """A record's tensors, in new memory.

        Raises:
            StoreError: As `read_into` says.
        """
        record = {item.name: torch.empty(item.shape, dtype=item.dtype) for item in self.layout(row)}
        for name, tensor in record.items():
            self.read_into(row, name, tensor)
        return record

    def _place(self, row: int, field: str) -> tuple[Place, Records, int, int]:
        """The place, the part and row of it that hold the record, the field's number."""
        part, inner = self._part(self._moved.get(row, row))
        shard, which, count, offset = part.groups[part.group.item(inner)].tolist()
        layout = part.layouts[which]
        try:
            number, before, nbytes = layout.places[field]
        except KeyError:
            known = ", ".join(item.name for item in layout.fields)
            raise StoreError(f"{field}: a record of kind {layout.kind!r} has no such tensor (it has {known})") from None
        try:
            file = self._files.get(part.shards[shard])
        except FileNotFoundError:
            self._follow(row, part, inner)
            return self._place(row, field)
        at = offset + count * before + part.slot.item(inner) * nbytes
        return Place(file, at, nbytes, layout.fields[number]), part, inner, number

    def _follow(self, row: int, part: Records, inner: int) -> None:
        """The shard of a row is gone: where somebody pruned the store, the record is in another now."""
        self.refresh()
        again = int(self.find(part.keys[inner : inner + 1])[0])
        if again < 0:
            raise self._damage(part, inner, "its shard is gone")
        self._moved[row] = again

    def _fill(self, part: Records, row: int, place: Place, data: memoryview | bytearray) -> None:
        try:
            done = os.preadv(place.file.fd, [data], place.offset)
            while done < place.nbytes:
                more = os.preadv(place.file.fd, [memoryview(data)[done:]], place.offset + done)
                if not more:
                    raise self._damage(part, row, "its shard is truncated")
                done += more
        except OSError as error:
            raise self._damage(part, row, f"it can't be read: {error.strerror or error}") from error

    def _damage(self, part: Records, row: int, what: str) -> StoreError:
        key = part.keys[row].tobytes()
        shard = self._shard_of(part, row)
        return StoreError(
            f"{self._shards / shard}.safetensors: record {key.hex()}: {what}. 'calotype cache verify --drop "
            f"{self.path}' finds all that is damaged and marks it, and encoding again makes just that anew",
            shard=shard,
            key=key,
        )

    # ---- writing

    def writer(self, *, shard_bytes: int = SHARD_BYTES, header_bytes: int = HEADER_BYTES) -> ShardWriter:
        """A writer into this store, whose puts this object knows at once. Finishes what dead writers left.

        Raises:
            StoreError: The folder can't be written.
        """
        self.recover()
        return ShardWriter(self._shards, shard_bytes=shard_bytes, header_bytes=header_bytes, learn=self._learn)

    def recover(self) -> None:
        """Finishes the shards that dead writers left, and learns what is in them.

        Raises:
            StoreError: The folder can't be written.
        """
        try:
            self._shards.mkdir(exist_ok=True)
            finish_dead_writers(self.path)
        except OSError as error:
            raise cannot_write(self._shards, error) from error
        self.refresh()

    def _learn(self, put: Put) -> None:
        with self._lock:
            if (contents := self._disk.learn(put)) is not None:
                self._unsorted.append(contents)

    def drop(self, rows: NDArray[np.int64] | Sequence[int]) -> None:
        """Marks records as not to be used, for everybody and for good: `find` says that they are missing.

        Raises:
            StoreError: The folder can't be written.
        """
        shards: dict[str, list[NDArray[np.uint8]]] = {}
        for row in rows:
            shards.setdefault(self.shard(int(row)), []).append(self.keys(np.array([row]))[0])
        self.drop_from({shard: np.stack(keys) for shard, keys in shards.items()})

    def drop_from(self, shards: Mapping[str, NDArray[np.uint8]]) -> None:
        """Marks, of each of these shards, the records with these keys (n, 16); as `drop`, where keys are what is known.

        Raises:
            StoreError: The folder can't be written.
        """
        if shards:
            try:
                write_dropped(self.path, shards)
            except OSError as error:
                raise cannot_write(self.path, error) from error
            self.refresh()

    # ---- what others do

    def refresh(self) -> None:
        """Learns what others have written, dropped and pruned since."""
        with self._lock:
            news, gone = self._disk.news()
            self._unsorted += news
            dropped, self._dropped_files = read_dropped(self.path, self._dropped_files)
            for shard, keys in dropped.items():
                self.dropped[shard] = np.concatenate([self.dropped.get(shard, keys[:0]), keys])
            for part in (self._base, self._more):
                part.bury(gone)
                part.bury_records(self.dropped)


def _reopen(kind: type[EncodingStore], path: Path, verify: Verify) -> EncodingStore:
    return kind(path, verify=verify)


_stores: weakref.WeakSet[EncodingStore] = weakref.WeakSet()


def _unlock_all() -> None:
    """A lock that a thread held when its process forked would stay shut in the fork for ever."""
    for store in list(_stores):
        store._lock = threading.RLock()


os.register_at_fork(after_in_child=_unlock_all)
