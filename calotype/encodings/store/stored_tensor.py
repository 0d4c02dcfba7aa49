"""Records as a batch takes them: tensors that are still on disk, or kept since they were first read."""

from __future__ import annotations

from collections.abc import Hashable
from math import prod

import numpy as np
import torch

from calotype.encodings.store.encoding_store import EncodingStore
from calotype.encodings.store.layout import Field, memory_of
from calotype.encodings.store.open_files import Spot

__all__ = ["RecordCache", "StoredTensor"]


class StoredTensor:
    """One tensor of a record. It satisfies `calotype.types.Readable`.

    Whoever reads a record often keeps its tensors: each remembers where its bytes are once they were found right.

    Args:
        store: Where it is.
        row: Of the record.
        field: The tensor, as the record's layout has it.
        length: Its first dimension is filled up with zeros to so many; None takes it as it is.
    """

    __slots__ = ("_bytes", "_name", "_row", "_spot", "_store", "dtype", "length", "nbytes", "shape")

    def __init__(self, store: EncodingStore, row: int, field: Field, *, length: int | None = None) -> None:
        self._store, self._row, self._name = store, row, field.name
        self._bytes = field.nbytes
        self._spot: Spot | None = None
        self.length = field.shape[0] if field.shape else 0
        """Of the first dimension as it is kept."""
        self.dtype: torch.dtype = field.dtype
        self.shape: tuple[int, ...] = field.shape if length is None else (length, *field.shape[1:])
        self.nbytes: int = prod(self.shape) * self.dtype.itemsize

    def read_into(self, out: memoryview) -> None:
        """Fills the memory of a contiguous tensor of this shape and dtype.

        Raises:
            StoreError: The record is damaged; names the shard.
        """
        kept = out if self._bytes == self.nbytes else out[: self._bytes]
        if self._spot is None or not self._store.read_spot(self._spot, kept):
            self._spot = self._store.read_bytes(self._row, self._name, kept)
        if kept is not out:
            np.frombuffer(out, np.uint8)[self._bytes :] = 0

    @property
    def place(self) -> tuple[EncodingStore, int, str, tuple[int, ...]]:
        """Which tensor of which store this is, and its shape, which the longest text of a dataset decides too."""
        return self._store, self._row, self._name, self.shape

    def load(self) -> torch.Tensor:
        """The tensor in memory of its own."""
        out = torch.empty(self.shape, dtype=self.dtype)
        self.read_into(memory_of(out))
        return out


class RecordCache:
    """Keeps the tensors of records from their first read on, all of them.

    Threads may share it. A pickled cache arrives empty: each process fills its own.

    Args:
        device: Where to keep them. On an accelerator they never travel again; None is this process's memory.
    """

    def __init__(self, device: str | torch.device | None = None) -> None:
        self.device = torch.device(device) if device is not None else torch.device("cpu")
        self._tensors: dict[Hashable, torch.Tensor] = {}

    def __len__(self) -> int:
        """Tensors that are kept."""
        return len(self._tensors)

    def get(self, stored: StoredTensor) -> torch.Tensor:
        """The tensor, read from disk the first time. It is shared: don't write to it.

        Raises:
            StoreError: The record is damaged; names the shard.
        """
        kept = self._tensors.get(stored.place)
        if kept is None:
            kept = self._tensors.setdefault(stored.place, stored.load().to(self.device))
        return kept

    def __reduce__(self) -> tuple[type[RecordCache], tuple[torch.device]]:
        return type(self), (self.device,)
