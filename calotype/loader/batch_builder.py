"""One batch in the making: samples are written into its memory as they come, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeGuard

import torch

from calotype.data.collate import check_same, collate_values
from calotype.types import Batch, Readable

__all__ = ["BatchBuilder", "HeapMemory", "Memory", "Pending", "Space", "Spec"]


class Spec(NamedTuple):
    """A tensor that memory is wanted for."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class Space(NamedTuple):
    """Memory for one tensor."""

    tensor: torch.Tensor
    data: memoryview
    """The same as bytes."""


class Memory(Protocol):
    """Where a batch's tensors are written."""

    def reserve(self, specs: dict[str, Spec], /) -> dict[str, Space]:
        """Memory for one tensor of each of these, by name, each aligned to 64 bytes."""
        ...


class HeapMemory:
    """Fresh memory for each tensor: no tensor of a batch shares its storage with another."""

    def reserve(self, specs: dict[str, Spec]) -> dict[str, Space]:
        tensors = {key: torch.empty(spec.shape, dtype=spec.dtype) for key, spec in specs.items()}
        return {key: Space(it, it.view(-1).view(torch.uint8).numpy().data) for key, it in tensors.items()}


class Pending(NamedTuple):
    """A tensor of a sample that has yet to be written to its place in the batch."""

    key: str
    place: int
    value: torch.Tensor | Readable


class BatchBuilder:
    """Gives the same batch as `collate`, without the samples ever being held together.

    The first sample to come fixes keys, shapes and dtypes; each sample's tensors are then copied straight to their
    place, in the thread that made them.

    Args:
        size: Samples in the batch.
        memory: Where its tensors go; None as long as samples are only added, see `attach`.
    """

    def __init__(self, size: int, memory: Memory | None = None) -> None:
        self._size = size
        self._memory = memory
        self._lock = threading.Lock()
        self._first: dict[str, Any] | None = None
        self._specs: dict[str, Spec] = {}
        self._spaces: dict[str, Space] = {}
        self._lists: dict[str, list[Any]] = {}

    def put(self, place: int, sample: Mapping[str, Any]) -> None:
        """Writes one sample.

        Raises:
            CollateError: It does not fit those that came before.
        """
        self.write(self.add(place, sample))

    def add(self, place: int, sample: Mapping[str, Any]) -> list[Pending]:
        """Takes in one sample, without its tensors: these are left to `write`, in any thread.

        Raises:
            CollateError: It does not fit those that came before.
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
                pending.append(Pending(key, place, value))
            else:
                self._lists[key][place] = value
        return pending

    def attach(self, memory: Memory) -> None:
        """Says where the tensors go of a batch whose samples have all been added."""
        self._spaces = memory.reserve(self._specs)

    def write(self, tensors: Iterable[Pending]) -> None:
        """Writes tensors to their places. There has to be memory."""
        for key, place, value in tensors:
            space = self._spaces[key]
            if isinstance(value, torch.Tensor):
                space.tensor[place].copy_(value)
            else:
                size = value.nbytes
                value.read_into(space.data[place * size : (place + 1) * size])

    def finish(self) -> tuple[dict[str, torch.Tensor], Batch]:
        """(tensors in the batch's memory, everything else), once all samples are in."""
        assert self._first is not None
        rest: Batch = {}
        for key, values in self._lists.items():
            rest |= collate_values(key, values)
        return {key: space.tensor for key, space in self._spaces.items()}, rest

    def _lay_out(self, sample: Mapping[str, Any]) -> None:
        self._specs = {
            key: Spec(value.dtype, (self._size, *value.shape)) for key, value in sample.items() if _travels(value)
        }
        if self._memory is not None:
            self.attach(self._memory)
        self._lists = {key: [None] * self._size for key in sample if key not in self._specs}
        self._first = {key: _described(value) for key, value in sample.items()}


def _fits(first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether `check_same` finds nothing, without describing what is to be read; may be a false negative."""
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
    """Whether a value has its place in the batch's memory."""
    return value.device.type == "cpu" if isinstance(value, torch.Tensor) else _is_readable(value)


def _is_readable(value: object) -> TypeGuard[Readable]:
    return hasattr(value, "read_into")  # a protocol's isinstance takes 10 µs, for every value of every sample


def _described(value: Any) -> Any:
    """What the check of other samples needs of a value: a "meta" tensor holds no memory."""
    if isinstance(value, torch.Tensor):
        return torch.empty_like(value, device="meta")
    return torch.empty(value.shape, dtype=value.dtype, device="meta") if _is_readable(value) else value
