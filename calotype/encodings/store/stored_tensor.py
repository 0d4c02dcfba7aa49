"""`StoredTensor`: a tensor that is read straight into a batch. `RecordCache`: a cache of tensors in memory."""

from __future__ import annotations

from collections.abc import Hashable
from math import prod

import numpy as np
import torch

from calotype.encodings.store.encoding_store import EncodingStore
from calotype.encodings.store.layout import Field, memory_of
from calotype.encodings.store.open_files import ShardOffset

__all__ = ["RecordCache", "StoredTensor"]


class StoredTensor:
    """One tensor of a record. It satisfies `calotype.types.Readable`.

    It caches the offset of its bytes once they were verified, so reuse the object to read a record again.

    Args:
        store: The store.
        row: Row of the record.
        field: Field of the record's layout.
        length: Size to which the first dimension is padded with zeros; None does not pad.
    """

    __slots__ = ("_bytes", "_found_at", "_name", "_row", "_store", "dtype", "length", "nbytes", "shape")

    def __init__(self, store: EncodingStore, row: int, field: Field, *, length: int | None = None) -> None:
        self._store, self._row, self._name = store, row, field.name
        self._bytes = field.nbytes
        self._found_at: ShardOffset | None = None
        self.length = field.shape[0] if field.shape else 0
        """Stored size of the first dimension, without padding."""
        self.dtype: torch.dtype = field.dtype
        self.shape: tuple[int, ...] = field.shape if length is None else (length, *field.shape[1:])
        self.nbytes: int = prod(self.shape) * self.dtype.itemsize

    def read_into(self, out: memoryview) -> None:
        """Read into the memory of a contiguous tensor of this shape and dtype.

        Raises:
            StoreError: The record is damaged; names the shard.
        """
        kept = out if self._bytes == self.nbytes else out[: self._bytes]
        if self._found_at is None or not self._store.read_at(self._found_at, kept):
            self._found_at = self._store.read_bytes(self._row, self._name, kept)
        if kept is not out:
            np.frombuffer(out, np.uint8)[self._bytes :] = 0

    @property
    def cache_key(self) -> tuple[EncodingStore, int, str, tuple[int, ...]]:
        """The key of the tensor. The shape is a part of it: padding depends on the longest text of the dataset."""
        return self._store, self._row, self._name, self.shape

    def load(self) -> torch.Tensor:
        """Return the tensor in new memory."""
        out = torch.empty(self.shape, dtype=self.dtype)
        self.read_into(memory_of(out))
        return out


class RecordCache:
    """Caches every tensor in memory after its first read. Thread-safe.

    A pickled cache is empty when unpickled: each process fills its own.

    Args:
        device: Device of the cached tensors; None is the CPU.
    """

    def __init__(self, device: str | torch.device | None = None) -> None:
        self.device = torch.device(device) if device is not None else torch.device("cpu")
        self._tensors: dict[Hashable, torch.Tensor] = {}

    def __len__(self) -> int:
        """Return the number of cached tensors."""
        return len(self._tensors)

    def get(self, stored: StoredTensor) -> torch.Tensor:
        """Return the tensor, read from disk on the first call. It is shared: do not write to it.

        Raises:
            StoreError: The record is damaged; names the shard.
        """
        kept = self._tensors.get(stored.cache_key)
        if kept is None:
            kept = self._tensors.setdefault(stored.cache_key, stored.load().to(self.device))
        return kept

    def __reduce__(self) -> tuple[type[RecordCache], tuple[torch.device]]:
        return type(self), (self.device,)
