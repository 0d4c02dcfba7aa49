"""`BatchBuilder`: collates a batch in place, sample by sample, from several threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeGuard

import torch

from calotype.data.collate import check_same, collate_values
from calotype.types import Batch, Readable

__all__ = ["BatchBuilder", "HeapMemory", "Memory", "Pending", "Space", "Spec"]


class Spec(NamedTuple):
    """Dtype and shape of a tensor to reserve memory for."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class Space(NamedTuple):
    """Memory for one tensor."""

    tensor: torch.Tensor
    data: memoryview
    """The same memory as bytes."""


class Memory(Protocol):
    """Allocates the memory of a batch's tensors."""

    def reserve(self, specs: dict[str, Spec], /) -> dict[str, Space]:
        """Return memory for one tensor of each spec, by key, each aligned to 64 bytes."""
        ...


class HeapMemory:
    """Allocates each tensor by itself: no two tensors of a batch share their storage."""

    def reserve(self, specs: dict[str, Spec]) -> dict[str, Space]:
        tensors = {key: torch.empty(spec.shape, dtype=spec.dtype) for key, spec in specs.items()}
        return {key: Space(it, it.view(-1).view(torch.uint8).numpy().data) for key, it in tensors.items()}


class Pending(NamedTuple):
    """A tensor of a sample that is not yet written into the batch."""

    key: str
    sample_index: int
    value: torch.Tensor | Readable


class BatchBuilder:
    """Builds the same batch as `collate`, without holding all its samples in memory at once.

    The first sample added fixes keys, shapes and dtypes. Each thread then copies the tensors of its samples straight
    into the batch.

    Args:
        size: Number of samples in the batch.
        memory: Allocates the tensors; None if `attach` is called later, after all samples are added.
    """

    def __init__(self, size: int, memory: Memory | None = None) -> None:
        self._size = size
        self._memory = memory
        self._lock = threading.Lock()
        self._first: dict[str, Any] | None = None
        self._specs: dict[str, Spec] = {}
        self._spaces: dict[str, Space] = {}
        self._lists: dict[str, list[Any]] = {}

    def put(self, index: int, sample: Mapping[str, Any]) -> None:
        """Add one sample and write its tensors.

        Args:
            index: Index of the sample in the batch.
            sample: Its values, by key.

        Raises:
            CollateError: Its keys, shapes or dtypes differ from those of the first sample.
        """
        self.write(self.add(index, sample))

    def add(self, index: int, sample: Mapping[str, Any]) -> list[Pending]:
        """Add one sample without copying its tensors; return them for `write`, which any thread may call.

        Args:
            index: Index of the sample in the batch.
            sample: Its values, by key.

        Raises:
            CollateError: Its keys, shapes or dtypes differ from those of the first sample.
        """
        with self._lock:
            if self._first is None:
                self._lay_out(sample)
        assert self._first is not None
        if not _fits(self._first, sample):
            check_same(self._first, {key: _described(v) if _is_readable(v) else v for key, v in sample.items()})
        pending = []
        for key, value in sample.items():
            if key in self._specs:
                pending.append(Pending(key, index, value))
            else:
                self._lists[key][index] = value
        return pending

    def attach(self, memory: Memory) -> None:
        """Reserve memory for the tensors, once all samples are added."""
        self._spaces = memory.reserve(self._specs)

    def write(self, tensors: Iterable[Pending]) -> None:
        """Copy or read tensors into the batch. Its memory must be reserved."""
        for key, index, value in tensors:
            space = self._spaces[key]
            if isinstance(value, torch.Tensor):
                space.tensor[index].copy_(value)  # (B, …)[index] ← (…)
            else:
                size = value.nbytes
                value.read_into(space.data[index * size : (index + 1) * size])

    def finish(self) -> tuple[dict[str, torch.Tensor], Batch, tuple[str, ...]]:
        """Return (tensors in the batch's memory, everything else, all keys in order), once all samples are written."""
        assert self._first is not None
        rest: Batch = {}
        keys: list[str] = []
        for key in self._first:
            if key in self._spaces:
                keys.append(key)
            else:
                collated = collate_values(key, self._lists[key])
                rest |= collated
                keys += collated
        return {key: space.tensor for key, space in self._spaces.items()}, rest, tuple(keys)

    def _lay_out(self, sample: Mapping[str, Any]) -> None:
        self._specs = {
            key: Spec(value.dtype, (self._size, *value.shape)) for key, value in sample.items() if _travels(value)
        }
        if self._memory is not None:
            self.attach(self._memory)
        self._lists = {key: [None] * self._size for key in sample if key not in self._specs}
        self._first = {key: _described(value) for key, value in sample.items()}


def _fits(first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether `check_same` would pass. Builds no "meta" tensors, so it is fast; may be a false negative."""
    if first.keys() != other.keys():
        return False
    for key, value in first.items():
        second = other[key]
        if isinstance(value, torch.Tensor):
            if not (hasattr(second, "shape") and value.shape == second.shape and value.dtype == second.dtype):
                return False
        elif type(value) is not type(second):
            return False
    return True


def _travels(value: object) -> TypeGuard[torch.Tensor | Readable]:
    """Return whether a value is written into the batch's memory: a CPU tensor or a `Readable`."""
    return value.device.type == "cpu" if isinstance(value, torch.Tensor) else _is_readable(value)


def _is_readable(value: object) -> TypeGuard[Readable]:
    return hasattr(value, "read_into")  # isinstance with a protocol takes 10 µs, for every value of every sample


def _described(value: Any) -> Any:
    """Return what `check_same` needs of a value: for a tensor, a "meta" tensor, which holds no memory."""
    if isinstance(value, torch.Tensor):
        return torch.empty_like(value, device="meta")
    return torch.empty(value.shape, dtype=value.dtype, device="meta") if _is_readable(value) else value
