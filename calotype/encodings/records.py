"""Records as a batch takes them: tensors that are still on disk, or kept since they were first read."""

from __future__ import annotations

from math import prod

import torch

from calotype.encodings.layout import Field
from calotype.encodings.store import EncodingStore

__all__ = ["RecordCache", "StoredTensor"]


class StoredTensor:
    """One tensor of a record. It satisfies `calotype.types.Readable`.

    Args:
        store: Where it is.
        row: Of the record.
        field: The tensor, as the record's layout has it.
        length: Its first dimension is filled up with zeros to so many; None takes it as it is.
    """

    __slots__ = ("_name", "_padded", "_row", "_store", "dtype", "length", "shape")

    def __init__(self, store: EncodingStore, row: int, field: Field, *, length: int | None = None) -> None:
        self._store, self._row, self._name = store, row, field.name
        self._padded = length is not None
        self.length = field.shape[0]
        """Of the first dimension as it is kept."""
        self.dtype: torch.dtype = field.dtype
        self.shape: tuple[int, ...] = field.shape if length is None else (length, *field.shape[1:])

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def read_into(self, out: torch.Tensor) -> None:
        """Fills `out`, a contiguous CPU tensor of this shape and dtype.

        Raises:
            StoreError: The record is damaged; names the shard.
        """
        if not self._padded:
            self._store.read_into(self._row, self._name, out)
            return
        self._store.read_into(self._row, self._name, out[: self.length])
        out[self.length :].zero_()

    @property
    def place(self) -> tuple[int, str]:
        """Which tensor of its store this is."""
        return self._row, self._name

    def load(self) -> torch.Tensor:
        """The tensor in memory of its own."""
        out = torch.empty(self.shape, dtype=self.dtype)
        self.read_into(out)
        return out


class RecordCache:
    """Keeps the tensors of one store's records from their first read on, all of them.

    Threads may share it. A pickled cache arrives empty: each process fills its own.

    Args:
        device: Where to keep them. On an accelerator they never travel again; None is this process's memory.
    """

    def __init__(self, device: str | torch.device | None = None) -> None:
        self.device = torch.device(device) if device is not None else torch.device("cpu")
        self._tensors: dict[tuple[int, str], torch.Tensor] = {}

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
