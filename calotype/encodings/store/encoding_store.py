"""`EncodingStore`: outputs of the frozen encoders, found by key and read straight into a given buffer.

store/
  format.json                      {"format": 1}
  shards/<name>.safetensors        finished shards
  shards/<name>.open.safetensors   being written, or left by a writer that was killed
  dropped/<name>.json              lists of dropped records
  index.safetensors                cached index of the finished shards
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
from calotype.encodings.store.open_files import OpenFiles, ShardOffset, TensorLocation
from calotype.encodings.store.recovery import finish_dead_writers
from calotype.encodings.store.writer import HEADER_BYTES, SHARD_BYTES, Put, ShardWriter
from calotype.errors import ConfigError, StoreError

__all__ = ["EncodingStore", "Verify"]

Verify = Literal["first", "always", "never"]


class EncodingStore:
    """A folder of records, each a few named tensors under a 16-byte key.

    A key is a hash of everything that could change a record, so records are added and never changed. `find` returns the
    row of a key; all other methods take rows. A row is valid only in the object that returned it, also after `refresh`.

    Thread-safe. A pickled store opens the folder again when it is unpickled.

    Args:
        path: The folder.
        create: Create it if it does not exist.
        verify: When to compare a tensor's bytes with their checksum: the `first` time that this object reads the
            tensor, `always` or `never`.

    Raises:
        StoreError: There is no store.
        NewerFormatError: A newer version of calotype wrote it.
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
        """Dropped records: shard → keys (n, 16)."""
        self._dropped_files: set[str] = set()
        self._moved: dict[int, int] = {}
        self._unsorted: list[Contents] = []
        """Groups added since; the next lookup merges them into `_later`, as a job makes many puts between lookups."""
        self._base, self._later = self._disk.open()
        self.refresh()

    @property
    def damaged(self) -> Mapping[str, str]:
        """Shards that can't be read completely → reason. Their lost records are not found, and so encoded again."""
        return self._disk.damaged

    @property
    def _shards(self) -> Path:
        return self.path / "shards"

    @property
    def _more(self) -> Records:
        """The records that are not in `_base`."""
        if self._unsorted:
            with self._lock:
                self._later = Records.joined(self._later, Records.of(self._unsorted))
                self._unsorted = []
        return self._later

    def __len__(self) -> int:
        """Return the number of records (a key that was written twice counts twice)."""
        return int(self._base.alive.sum() + self._more.alive.sum())

    def __reduce__(self) -> Any:
        return _reopen, (type(self), self.path.absolute(), self.verify)

    # ---- finding

    def find(self, keys: Iterable[bytes] | NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the row of each key, -1 for one that is missing.

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
        """Return the row of one 16-byte key, -1 if it is missing: faster than `find` for a few keys."""
        base, more = self._base, self._more
        row = base.find_one(key)
        if row < 0 and (row := more.find_one(key)) >= 0:
            row += len(base)
        return row

    def rows(self, kind: str | None = None) -> NDArray[np.int64]:
        """Return all rows, or those of one kind, ordered by shard and offset."""
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
        """Return the keys (n, 16) of rows."""
        rows = np.asarray(rows, np.int64)
        keys = np.empty((len(rows), KEY_BYTES), np.uint8)
        base = rows < len(self._base)
        keys[base] = self._base.keys[rows[base]]
        keys[~base] = self._more.keys[rows[~base] - len(self._base)]
        return keys

    def has(self, key: bytes) -> bool:
        """Return whether a record has this key."""
        return bool(self.find([key])[0] >= 0)

    def layout(self, row: int) -> tuple[Field, ...]:
        """Return the fields of a record, without reading it."""
        return self._layout(row).fields

    def kind(self, row: int) -> str:
        """Return the kind of a record: `text`, `picture`, …"""
        return self._layout(row).kind

    def _layout(self, row: int) -> Layout:
        part, row = self._part(row)
        return part.layouts[int(part.groups[part.group[row], 1])]

    def layouts(self, rows: NDArray[np.int64]) -> tuple[list[Layout], NDArray[np.int64]]:
        """Return the layouts of many records: the list of layouts, and for each row an index into it (n,)."""
        rows = np.asarray(rows, np.int64)
        base, more = self._base, self._more
        there = rows >= len(base)
        which = np.empty(len(rows), np.int64)
        which[~there] = base.groups[base.group[rows[~there]], 1]
        which[there] = more.groups[more.group[rows[there] - len(base)], 1] + np.uint64(len(base.layouts))
        return [*base.layouts, *more.layouts], which

    def shard(self, row: int) -> str:
        """Return the name of a record's shard, without suffix."""
        return self._shard_of(*self._part(row))

    def _shard_of(self, part: Records, row: int) -> str:
        return part.shards[int(part.groups[part.group[row], 0])]

    def _part(self, row: int) -> tuple[Records, int]:
        if row < 0:
            raise IndexError(f"row {row}: a record that was not found has no row")
        base = self._base
        return (base, row) if row < len(base) else (self._more, row - len(base))

    # ---- reading

    def locate(self, row: int, field: str) -> TensorLocation:
        """Return where a tensor's bytes are, for a custom reader; nothing is verified.

        Raises:
            StoreError: The record has no such tensor, or its shard was deleted.
        """
        return self._locate(row, field)[0]

    def read_into(self, row: int, field: str, out: torch.Tensor) -> None:
        """Read one tensor of a record into the memory of another, without the GIL.

        Args:
            row: A row that `find` returned.
            field: The tensor's name.
            out: A contiguous CPU tensor of the stored dtype and shape.

        Raises:
            StoreError: The shard is damaged or deleted, the checksum differs, or `out` has another dtype or shape.
        """
        found = self._locate(row, field)
        wanted = found[0].field
        if out.dtype != wanted.dtype or out.shape != wanted.shape or not out.is_contiguous() or not out.is_cpu:
            strided = "" if out.is_contiguous() else ", not contiguous"
            raise StoreError(
                f"{field}: found a tensor of {out.dtype}, {tuple(out.shape)}, on {out.device}{strided}, to read it "
                f"into; expected {wanted.dtype}, {wanted.shape}, on the CPU, contiguous"
            )
        self._read(*found, memory_of(out))

    def read_bytes(self, row: int, field: str, data: memoryview) -> ShardOffset | None:
        """Read like `read_into`, into a buffer of the tensor's size.

        Args:
            row: A row that `find` returned.
            field: The tensor's name.
            data: A writable buffer of the tensor's bytes.

        Returns:
            Where the tensor is, for `read_at`; None if each read is to be verified.

        Raises:
            StoreError: The shard is damaged or deleted, or the checksum differs.
        """
        return self._read(*self._locate(row, field), data)

    def _read(
        self, place: TensorLocation, part: Records, row: int, number: int, data: memoryview
    ) -> ShardOffset | None:
        self._fill(part, row, place, data)
        if self.verify == "never":
            return ShardOffset(self._shard_of(part, row), place.offset)
        if self.verify == "always" or not part.verified.item(row) >> number & 1:
            _, which, count, offset = part.groups[part.group.item(row)].tolist()
            layout = part.layouts[which]
            table = offset + count * layout.nbytes + part.slot.item(row) * layout.table_width
            expected = bytearray(8)
            self._fill(part, row, TensorLocation(place.file, table + KEY_BYTES + 8 * number, 8, place.field), expected)
            if checksum(part.keys[row].tobytes(), layout.seeds[number], data) != int.from_bytes(expected, "little"):
                raise self._damage(part, row, f"its {place.field.name} is not what was written: the checksum differs")
            part.verified[row] |= np.uint64(1 << number)
        return None if self.verify == "always" else ShardOffset(self._shard_of(part, row), place.offset)

    def read_at(self, at: ShardOffset, data: memoryview) -> bool:
        """Read where `read_bytes` has read before, without lookup or verification.

        Returns:
            False if it failed; `read_bytes` then finds the record again or raises the reason.
        """
        try:
            return os.preadv(self._files.get(at.shard).fd, (data,), at.offset) == len(data)
        except OSError:
            return False

    def get(self, row: int) -> dict[str, torch.Tensor]:
        """Read a record's tensors into new memory: name → tensor.

        Raises:
            StoreError: See `read_into`.
        """
        record = {item.name: torch.empty(item.shape, dtype=item.dtype) for item in self.layout(row)}
        for name, tensor in record.items():
            self.read_into(row, name, tensor)
        return record

    def _locate(self, row: int, field: str) -> tuple[TensorLocation, Records, int, int]:
        """Return the location, the table and the row in it that hold the record, and the field's number."""
        part, inner = self._part(self._moved.get(row, row))
        shard, which, count, offset = part.groups[part.group.item(inner)].tolist()
        layout = part.layouts[which]
        try:
            number, before, nbytes = layout.positions[field]
        except KeyError:
            known = ", ".join(item.name for item in layout.fields)
            raise StoreError(f"{field}: a record of kind {layout.kind!r} has no such tensor (it has {known})") from None
        try:
            file = self._files.get(part.shards[shard])
        except FileNotFoundError:
            self._find_again(row, part, inner)
            return self._locate(row, field)
        at = offset + count * before + part.slot.item(inner) * nbytes
        return TensorLocation(file, at, nbytes, layout.fields[number]), part, inner, number

    def _find_again(self, row: int, part: Records, inner: int) -> None:
        """Find a record again whose shard was deleted: pruning may have moved it to another shard."""
        self.refresh()
        again = int(self.find(part.keys[inner : inner + 1])[0])
        if again < 0:
            raise self._damage(part, inner, "its shard was deleted")
        self._moved[row] = again

    def _fill(self, part: Records, row: int, place: TensorLocation, data: memoryview | bytearray) -> None:
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
            f"{self.path}' finds and drops what is damaged; encoding again makes just that",
            shard=shard,
            key=key,
        )

    # ---- writing

    def writer(self, *, shard_bytes: int = SHARD_BYTES, header_bytes: int = HEADER_BYTES) -> ShardWriter:
        """Return a writer into this store; this object finds its puts at once. Calls `recover`.

        Raises:
            StoreError: The folder can't be written.
        """
        self.recover()
        return ShardWriter(self._shards, shard_bytes=shard_bytes, header_bytes=header_bytes, on_put=self._add_put)

    def recover(self) -> None:
        """Finish the shards that killed writers left, and add their records.

        Raises:
            StoreError: The folder can't be written.
        """
        try:
            self._shards.mkdir(exist_ok=True)
            finish_dead_writers(self.path)
        except OSError as error:
            raise cannot_write(self._shards, error) from error
        self.refresh()

    def _add_put(self, put: Put) -> None:
        with self._lock:
            if (contents := self._disk.add_put(put)) is not None:
                self._unsorted.append(contents)

    def drop(self, rows: NDArray[np.int64] | Sequence[int]) -> None:
        """Drop records, permanently and for every reader: `find` returns -1 for them.

        Raises:
            StoreError: The folder can't be written.
        """
        shards: dict[str, list[NDArray[np.uint8]]] = {}
        for row in rows:
            shards.setdefault(self.shard(int(row)), []).append(self.keys(np.array([row]))[0])
        self.drop_from({shard: np.stack(keys) for shard, keys in shards.items()})

    def drop_from(self, shards: Mapping[str, NDArray[np.uint8]]) -> None:
        """Drop records by shard and keys (n, 16), as `drop` does by row.

        Raises:
            StoreError: The folder can't be written.
        """
        if shards:
            try:
                write_dropped(self.path, shards)
            except OSError as error:
                raise cannot_write(self.path, error) from error
            self.refresh()

    # ---- changes by other processes

    def refresh(self) -> None:
        """Read what other processes have written, dropped and pruned since the last call."""
        with self._lock:
            added, deleted = self._disk.changes()
            self._unsorted += added
            dropped, self._dropped_files = read_dropped(self.path, self._dropped_files)
            for shard, keys in dropped.items():
                self.dropped[shard] = np.concatenate([self.dropped.get(shard, keys[:0]), keys])
            for part in (self._base, self._more):
                part.invalidate_shards(deleted)
                part.invalidate_records(self.dropped)


def _reopen(kind: type[EncodingStore], path: Path, verify: Verify) -> EncodingStore:
    return kind(path, verify=verify)


_stores: weakref.WeakSet[EncodingStore] = weakref.WeakSet()


def _unlock_all() -> None:
    """Replace the locks in a forked process: one that another thread held at the fork is never released."""
    for store in list(_stores):
        store._lock = threading.RLock()


os.register_at_fork(after_in_child=_unlock_all)
