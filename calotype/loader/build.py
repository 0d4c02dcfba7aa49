"""One batch in the making: samples are written into its memory as they come, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from math import prod
from typing import Any, Protocol, TypeGuard

import torch

from calotype.collate import check_same, collate_values
from calotype.types import Batch, Readable

__all__ = ["BatchBuilder", "HeapMemory", "Memory"]


class Memory(Protocol):
    """Where a batch's tensors are written."""

    def reserve(self, sizes: list[int]) -> list[torch.Tensor]:
        """One uint8 tensor of each of these sizes in bytes, each aligned to 64 bytes."""
        ...


class HeapMemory:
    """Fresh memory for each tensor: no tensor of a batch shares its storage with another."""

    def reserve(self, sizes: list[int]) -> list[torch.Tensor]:
        return [torch.empty(size, dtype=torch.uint8) for size in sizes]


class BatchBuilder:
    """Gives the same batch as `collate`, without the samples ever being held together.

    The first sample to come fixes keys, shapes and dtypes; each sample's tensors are then copied straight to their
    place, in the thread that made them.

    Args:
        size: Samples in the batch.
        memory: Where its tensors go.
    """

    def __init__(self, size: int, memory: Memory) -> None:
        self._size = size
        self._memory = memory
        self._lock = threading.Lock()
        self._first: dict[str, Any] | None = None
        self._stacked: dict[str, torch.Tensor] = {}
        self._memories: dict[str, memoryview] = {}
        """The same as bytes, where samples are still to be read."""
        self._lists: dict[str, list[Any]] = {}

    def put(self, place: int, sample: Mapping[str, Any]) -> None:
        """Writes one sample.

        Raises:
            CollateError: It does not fit those that came before.
        """
        with self._lock:
            if self._first is None:
                self._lay_out(sample)
        assert self._first is not None
        if not _fits(self._first, sample):
            check_same(self._first, {key: _described(v) if _is_readable(v) else v for key, v in sample.items()})
        for key, value in sample.items():
            if key not in self._stacked:
                self._lists[key][place] = value
            elif isinstance(value, torch.Tensor):
                self._stacked[key][place].copy_(value)
            else:
                size = value.nbytes
                value.read_into(self._memories[key][place * size : (place + 1) * size])

    def finish(self) -> tuple[dict[str, torch.Tensor], Batch]:
        """(tensors in the batch's memory, everything else), once all samples are in."""
        assert self._first is not None
        rest: Batch = {}
        for key, values in self._lists.items():
            rest |= collate_values(key, values)
        return self._stacked, rest

    def _lay_out(self, sample: Mapping[str, Any]) -> None:
        keys = [key for key, value in sample.items() if _travels(value)]
        tensors = [sample[key] for key in keys]
        parts = self._memory.reserve([tensor.nbytes * self._size for tensor in tensors])
        for key, tensor, part in zip(keys, tensors, parts, strict=True):
            shape = (self._size, *tensor.shape)
            self._stacked[key] = part[: prod(shape) * tensor.dtype.itemsize].view(tensor.dtype).view(shape)
            if not isinstance(tensor, torch.Tensor):
                self._memories[key] = part.numpy().data
        self._lists = {key: [None] * self._size for key in sample if key not in self._stacked}
        self._first = {key: _described(value) for key, value in sample.items()}


def _fits(first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether `check_same` has nothing to say, without describing what is still to be read; False is a perhaps."""
    if first.keys() != other.keys():
        return False
    for key, value in first.items():
        twin = other[key]
        if isinstance(value, torch.Tensor):
            if not (hasattr(twin, "shape") and value.shape == twin.shape and value.dtype == twin.dtype):
                return False
        elif type(value) is not type(twin):
            return False
    return True


def _travels(value: object) -> bool:
    """Whether a value has its place in the batch's memory."""
    return value.device.type == "cpu" if isinstance(value, torch.Tensor) else _is_readable(value)


def _is_readable(value: object) -> TypeGuard[Readable]:
    return hasattr(value, "read_into")  # a protocol's isinstance takes 10 µs, for every value of every sample


def _described(value: Any) -> Any:
    """What the check of other samples needs of a value: a "meta" tensor holds no memory."""
    if isinstance(value, torch.Tensor):
        return torch.empty_like(value, device="meta")
    return torch.empty(value.shape, dtype=value.dtype, device="meta") if _is_readable(value) else value
