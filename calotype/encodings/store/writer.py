"""`ShardWriter`: each put is one commit; a failed put does not affect the ones before it."""

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
"""Space reserved for a shard's header: some 800 groups, 0.05 % of a full shard."""

_PIECE: Final = 1 << 20
"""Bytes to hash and write at a time: they fit into a core's L2 cache."""


class Put(NamedTuple):
    """The groups that a put added to a shard."""

    shard: str
    first: int
    """Index of its first group in the shard."""
    groups: list[Group]
    keys: list[NDArray[np.uint8]]
    """(count, 16) of each group"""


class ShardWriter:
    """Writes records into shards of its own. `EncodingStore.writer()` returns one.

    Any number of writers, in any number of processes, may write into one store at once: each has its own shards. A
    writer is thread-safe; puts are serialised.

    A shard is finished (flushed to disk and renamed) when it reaches `shard_bytes`, when its header is full, and by
    `close`. The open shard of a killed process is finished by the next writer of the store.

    Args:
        folder: The store's folder of shards.
        shard_bytes: Size in bytes at which a shard is finished and the next one is started.
        header_bytes: Bytes reserved for a shard's header.
        on_put: Called with each put after its commit.
    """

    def __init__(
        self,
        folder: Path,
        *,
        shard_bytes: int = SHARD_BYTES,
        header_bytes: int = HEADER_BYTES,
        on_put: Callable[[Put], None] | None = None,
    ) -> None:
        self.finished = 0
        """Number of shards that this writer has finished."""
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._header_bytes = header_bytes
        self._on_put = on_put
        self._shard: _OpenShard | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._owner = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the writer's process, and needs a writer of its own."""
        return os.getpid() != self._owner

    def put(
        self,
        keys: Sequence[bytes] | NDArray[np.uint8],
        records: Sequence[Mapping[str, torch.Tensor]] | Mapping[str, torch.Tensor],
        *,
        kind: str,
    ) -> None:
        """Add records: all of them, or none if this raises.

        Args:
            keys: The key of each record, 16 bytes, or an array (n, 16) of uint8.
            records: A mapping name → tensor for each record, of any shapes; or one mapping name → tensor (n, …) of the
                stacked records.
            kind: `text`, `picture`, `scaling`, …

        Raises:
            StoreError: The disk is full, the folder can't be written, or a record is invalid. The store is unchanged,
                and the writer stays usable.
        """
        if self.forked:
            raise StoreError(
                f"{self._folder}: this writer belongs to process {self._owner}, and process {os.getpid()} is a fork of "
                "it; take another one from the store"
            )
        keys = as_keys(keys)
        batches = [_stacked(kind, keys, records)] if isinstance(records, Mapping) else _grouped(kind, keys, records)
        if not len(keys):
            return
        with self._lock:
            if self._closed:
                raise StoreError(f"{self._folder}: this writer is closed; take another one from the store")
            try:
                shard, text = self._shard_for(batches)
                put = shard.append(batches, text)
                if self._on_put is not None:
                    self._on_put(put)
            except OSError as error:
                raise cannot_write(self._shard.path if self._shard else self._folder, error) from error

    def close(self) -> None:
        """Finish the open shard.

        Raises:
            StoreError: It can't be flushed; the store's next writer recovers what is on the disk.
        """
        if self.forked:  # the writer's process finishes the shard
            return
        with self._lock:
            self._closed = True
            if self._shard is not None:
                try:
                    self._finish()
                except OSError as error:
                    raise cannot_write(self._folder, error) from error

    def _shard_for(self, batches: list[_Batch]) -> tuple[_OpenShard, bytes]:
        """Return a shard with space for these batches, and their header text."""
        if self._shard is not None:
            text = self._shard.text(batches)
            grown = self._shard.end - self._shard.base + sum(batch.nbytes for batch in batches)
            fits = grown <= self._shard_bytes or not self._shard.groups
            if fits and len(text) < self._shard.header_space and not self._shard.torn:
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
    """Records of one layout that are to be written."""

    def __init__(
        self,
        layout: Layout,
        keys: NDArray[np.uint8],
        columns: Sequence[Sequence[NDArray[np.uint8]] | NDArray[np.uint8]],
    ) -> None:
        """Take the bytes of each record for each field of the layout (`columns`)."""
        self.layout = layout
        self.keys = keys
        self.nbytes = self.at(0).end
        self._columns = columns

    def at(self, offset: int) -> Group:
        return Group(self.layout, len(self.keys), offset)

    def write(self, fd: int, offset: int) -> None:
        """Write tensors, table and padding. Each piece is hashed and written while it is in the CPU cache."""
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
    """Group records by layout, in order of first occurrence."""
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
    """The shard that a writer appends to, under an exclusive lock that ends with the process."""

    def __init__(self, folder: Path, header: int) -> None:
        self.name = unique_name()
        self.path = folder / f"{self.name}{OPEN}"
        self.base = header
        self.end = header
        self.groups = 0
        self._brace = 8 + len(EMPTY) - 1
        self.torn = False
        """A put failed and could not be rolled back; the store's next writer recovers the shard."""
        # Renamed once it is locked and has a header: before, another process would recover it as a dead writer's.
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

    def close_in_fork(self) -> None:
        """Close the file in a forked process, so that the lock ends with the writer's process."""
        os.close(self._fd)

    @property
    def header_space(self) -> int:
        """Bytes left in the header."""
        return self.base - self._brace - 1

    def text(self, batches: list[_Batch]) -> bytes:
        """Return the header text of these batches: a comma, their entries and the closing brace."""
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
                self._roll_back(len(text))
                raise
            # Committed: the exception (Ctrl-C) came after the last write.
            self._advance(offset, len(text), len(batches))
            raise
        self._advance(offset, len(text), len(batches))
        return put

    def _advance(self, end: int, text: int, groups: int) -> None:
        self.end = end
        self._brace += text - 1
        self.groups += groups

    def _roll_back(self, text: int) -> None:
        """Undo what was written of a failed put."""
        self.torn = True
        with suppress(OSError):
            write_all(self._fd, [b" " * (text - 1)], self._brace + 1)
            os.ftruncate(self._fd, self.end)
            self.torn = False

    def finish(self) -> int:
        """Flush, rename and close the file. Return the number of finished shards: 0 for an empty one, else 1."""
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


def _close_open_shards() -> None:
    for shard in list(_open_shards):
        shard.close_in_fork()
    _open_shards.clear()


os.register_at_fork(after_in_child=_close_open_shards)
