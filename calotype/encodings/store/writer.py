"""Writing a store: each put is one commit, and whatever happens the puts before it stay."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from calotype.core.atomic import sync_folder
from calotype.encodings.store.files import cannot_write, reserve, unique_name, write_all
from calotype.encodings.store.layout import KEY_BYTES, Layout, as_bytes, as_keys, checksum_of
from calotype.encodings.store.shard import ALIGN, EMPTY, FINISHED, OPEN, Group, describe
from calotype.errors import StoreError

__all__ = ["Put", "ShardWriter"]

SHARD_BYTES: Final = 512 << 20
HEADER_BYTES: Final = 256 << 10
"""Room for the header of a shard: some 800 groups, a tenth of a percent of a usual shard's bytes."""

_PIECE: Final = 1 << 20
"""Bytes to hash and write at once: what fits into a core's own cache."""


class Put(NamedTuple):
    """What a put added to a shard."""

    shard: str
    first: int
    """Number of its first group in the shard."""
    groups: list[Group]
    keys: list[NDArray[np.uint8]]
    """(count, 16) of each group"""


class ShardWriter:
    """Writes records into shards of its own; `EncodingStore.writer()` gives one.

    Any number of writers, in any number of processes, write into one store at once: they share nothing. Threads may
    share a writer; their puts take turns.

    A shard is finished, which is flushed to the disk and given its final name, when it has reached `shard_bytes`, when
    its header is full, and by `close`. What a process that dies leaves open, the next writer of the store finishes.

    Args:
        folder: The store's folder of shards.
        shard_bytes: When to finish a shard and begin the next.
        header_bytes: Room to keep for a shard's header.
        learn: Told of each put once it is there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        shard_bytes: int = SHARD_BYTES,
        header_bytes: int = HEADER_BYTES,
        learn: Callable[[Put], None] | None = None,
    ) -> None:
        self.finished = 0
        """Shards that this writer has finished."""
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._header_bytes = header_bytes
        self._learn = learn
        self._shard: _OpenShard | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._owner = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one whose writer it is, and has to take one of its own."""
        return os.getpid() != self._owner

    def put(
        self,
        keys: Sequence[bytes] | NDArray[np.uint8],
        records: Sequence[Mapping[str, torch.Tensor]] | Mapping[str, torch.Tensor],
        *,
        kind: str,
    ) -> None:
        """Adds records: all of them, or, if this raises, none.

        Args:
            keys: The key of each record, 16 bytes, or an array (n, 16) of uint8.
            records: One mapping of names to tensors for each record, of any shapes; or one mapping with the tensors of
                all records stacked, (n, …).
            kind: What they are of: `text`, `picture`, `scaling`, …

        Raises:
            StoreError: The disk is full, the folder can't be written, or something here can't be a record. The store is
                as it was before, and the writer goes on.
        """
        if self.forked:
            raise StoreError(
                f"{self._folder}: this writer belongs to process {self._owner}, and process {os.getpid()} is a fork of "
                "it: take another from the store"
            )
        keys = as_keys(keys)
        batches = [_stacked(kind, keys, records)] if isinstance(records, Mapping) else _grouped(kind, keys, records)
        if not len(keys):
            return
        with self._lock:
            if self._closed:
                raise StoreError(f"{self._folder}: this writer is closed: take another from the store")
            try:
                shard, text = self._shard_for(batches)
                put = shard.append(batches, text)
                if self._learn is not None:
                    self._learn(put)
            except OSError as error:
                raise cannot_write(self._shard.path if self._shard else self._folder, error) from error

    def close(self) -> None:
        """Finishes the open shard.

        Raises:
            StoreError: It can't be flushed; what the disk did take is found by the store's next writer.
        """
        if self.forked:  # the shard is the other process's to finish
            return
        with self._lock:
            self._closed = True
            if self._shard is not None:
                try:
                    self._finish()
                except OSError as error:
                    raise cannot_write(self._folder, error) from error

    def _shard_for(self, batches: list[_Batch]) -> tuple[_OpenShard, bytes]:
        """The shard that takes these, and their text in its header."""
        if self._shard is not None:
            text = self._shard.text(batches)
            grown = self._shard.end - self._shard.base + sum(batch.nbytes for batch in batches)
            fits = grown <= self._shard_bytes or not self._shard.groups
            if fits and len(text) < self._shard.room and not self._shard.torn:
                return self._shard, text
            self._finish()
        # Offsets have at most 20 digits more than the shortest: a header that holds twice this holds the text.
        least = 2 * (len(EMPTY) + sum(len(json.dumps(describe(0, batch.at(0), 0))) + 80 for batch in batches))
        self._shard = _OpenShard(self._folder, -(-max(self._header_bytes, least) // ALIGN) * ALIGN)
        return self._shard, self._shard.text(batches)

    def _finish(self) -> None:
        shard, self._shard = self._shard, None
        assert shard is not None
        self.finished += shard.finish()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Batch:
    """Records of one layout on their way into a shard."""

    def __init__(
        self,
        layout: Layout,
        keys: NDArray[np.uint8],
        columns: Sequence[Sequence[NDArray[np.uint8]] | NDArray[np.uint8]],
    ) -> None:
        """`columns`: for each field of the layout, the bytes of each record."""
        self.layout = layout
        self.keys = keys
        self.nbytes = self.at(0).end
        self._columns = columns

    def at(self, offset: int) -> Group:
        return Group(self.layout, len(self.keys), offset)

    def write(self, fd: int, offset: int) -> None:
        """Writes tensors, table and padding. Each piece is hashed just before, and so is in the processor's cache."""
        if self.nbytes >= _PIECE:
            reserve(fd, self.nbytes, offset)
        table = np.zeros((len(self.keys), self.layout.table_width), np.uint8)
        table[:, :KEY_BYTES] = self.keys
        names = [key.tobytes() for key in self.keys]
        waiting: list[NDArray[np.uint8]] = []
        size = 0
        for number, (seed, column) in enumerate(zip(self.layout.seeds, self._columns, strict=True)):
            sums = np.empty(len(names), "<u8")
            for slot, (name, data) in enumerate(zip(names, column, strict=True)):
                digest = checksum_of(name, seed)
                for start in range(0, len(data), _PIECE):
                    piece = data[start : start + _PIECE]
                    digest.update(piece.data)
                    waiting.append(piece)
                    size += len(piece)
                    if size >= _PIECE:
                        write_all(fd, waiting, offset)
                        offset += size
                        waiting, size = [], 0
                sums[slot] = digest.intdigest()
            at = KEY_BYTES + 8 * number
            table[:, at : at + 8] = sums.view(np.uint8).reshape(-1, 8)
        group = self.at(0)
        write_all(fd, [*waiting, table, bytes(group.end - group.data_end)], offset)


def _stacked(kind: str, keys: NDArray[np.uint8], records: Mapping[str, torch.Tensor]) -> _Batch:
    for name, tensor in records.items():
        if tensor.ndim == 0 or len(tensor) != len(keys):
            raise StoreError(
                f"{name}: found shape {tuple(tensor.shape)} for {len(keys)} keys, expected ({len(keys)}, …)"
            )
    layout = Layout.of(kind, {name: (tensor.dtype, tuple(tensor.shape[1:])) for name, tensor in records.items()})
    return _Batch(layout, keys, [_host(records[f.name]).reshape(len(keys), f.nbytes) for f in layout.fields])


def _grouped(kind: str, keys: NDArray[np.uint8], records: Sequence[Mapping[str, torch.Tensor]]) -> list[_Batch]:
    """Records of equal layout together, in the order in which each layout first comes."""
    if len(records) != len(keys):
        raise StoreError(f"found {len(records)} records for {len(keys)} keys, expected as many")
    members: dict[Layout, list[int]] = {}
    for number, record in enumerate(records):
        layout = Layout.of(kind, {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in record.items()})
        members.setdefault(layout, []).append(number)
    return [
        _Batch(layout, keys[numbers], [[_host(records[n][f.name]) for n in numbers] for f in layout.fields])
        for layout, numbers in members.items()
    ]


def _host(tensor: torch.Tensor) -> NDArray[np.uint8]:
    return as_bytes(tensor.detach().to("cpu").contiguous())


class _OpenShard:
    """The file that a writer is adding to, under an exclusive lock that ends with the process."""

    def __init__(self, folder: Path, header: int) -> None:
        self.name = unique_name()
        self.path = folder / f"{self.name}{OPEN}"
        self.base = header
        self.end = header
        self.groups = 0
        self._brace = 8 + len(EMPTY) - 1
        self.torn = False
        """A put failed and could not be taken back: the rest is for whoever opens the store next."""
        # Named only when it is locked and has a header, so that nobody takes it for one that a dead writer left.
        hidden = folder / f".{self.name}.new"
        self._fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            write_all(self._fd, [(header - 8).to_bytes(8, "little") + EMPTY.ljust(header - 8)], 0)
            hidden.rename(self.path)
        except BaseException:
            hidden.unlink(missing_ok=True)
            os.close(self._fd)
            raise
        _open_shards.add(self)

    def let_go(self) -> None:
        """Closes the file in a fork of the process that writes it: the lock is to end with that process."""
        os.close(self._fd)

    @property
    def room(self) -> int:
        """Bytes of text that the header still takes."""
        return self.base - self._brace - 1

    def text(self, batches: list[_Batch]) -> bytes:
        """What the header gets for these: a comma, their entries, the brace."""
        offset = self.end
        parts = []
        for number, batch in enumerate(batches, start=self.groups):
            entries = describe(number, batch.at(offset), self.base)
            parts.append(json.dumps(entries, separators=(",", ":"))[1:-1])
            offset += batch.nbytes
        return ("," + ",".join(parts) + "}").encode("ascii")

    def append(self, batches: list[_Batch], text: bytes) -> Put:
        put = Put(self.name, self.groups, [], [batch.keys for batch in batches])
        offset = self.end
        for batch in batches:
            put.groups.append(batch.at(offset))
            offset += batch.nbytes
        try:
            for batch, group in zip(batches, put.groups, strict=True):
                batch.write(self._fd, group.offset)
            write_all(self._fd, [text[1:]], self._brace + 1)
            write_all(self._fd, [text[:1]], self._brace)
        except BaseException:
            if os.pread(self._fd, 1, self._brace) != text[:1]:
                self._withdraw(len(text))
                raise
            # Committed; whatever came (Ctrl-C) came after it.
            self._advance(offset, len(text), len(batches))
            raise
        self._advance(offset, len(text), len(batches))
        return put

    def _advance(self, end: int, text: int, groups: int) -> None:
        self.end = end
        self._brace += text - 1
        self.groups += groups

    def _withdraw(self, text: int) -> None:
        """Takes back what was written of a put that failed."""
        self.torn = True
        with suppress(OSError):
            write_all(self._fd, [b" " * (text - 1)], self._brace + 1)
            os.ftruncate(self._fd, self.end)
            self.torn = False

    def finish(self) -> int:
        """Flushes the file, names it as finished and lets go of it. Returns 1, or 0 if there was nothing in it."""
        try:
            if self.torn:
                return 0
            if not self.groups:
                self.path.unlink()
                return 0
            os.fsync(self._fd)
            self.path.rename(self.path.with_name(f"{self.name}{FINISHED}"))
            sync_folder(self.path.parent)
            return 1
        finally:
            _open_shards.discard(self)
            os.close(self._fd)


_open_shards: weakref.WeakSet[_OpenShard] = weakref.WeakSet()


def _let_go_of_all() -> None:
    for shard in list(_open_shards):
        shard.let_go()
    _open_shards.clear()


os.register_at_fork(after_in_child=_let_go_of_all)
