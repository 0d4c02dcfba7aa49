"""`Slot`: memory for one batch, shared by the loader process and the trainer."""

from __future__ import annotations

import mmap
import os
import tempfile
from math import prod
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from calotype.loader.batch_builder import Space, Spec
from calotype.loader.huge_pages import HUGE, in_huge_pages

__all__ = ["LEASES", "Place", "Slot", "unnamed_file"]

LEASES = 2
"""Maximum number of batches in the trainer that are views of slots: the one in use and the next."""

_ALIGN = 64


class Place(NamedTuple):
    """Location of a tensor in a slot."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    """In bytes from the beginning of the slot."""
    nbytes: int

    def over(self, memory: memoryview | bytearray | NDArray[Any]) -> torch.Tensor:
        """Return the tensor as a view of the slot's memory, which it keeps alive. Its storage has its own bytes only.

        Args:
            memory: All bytes of the slot.
        """
        if not self.nbytes:
            return torch.empty(self.shape, dtype=self.dtype)
        count = self.nbytes // self.dtype.itemsize
        return torch.frombuffer(memory, dtype=self.dtype, count=count, offset=self.offset).view(self.shape)

    def copied(self, memory: NDArray[Any]) -> torch.Tensor:
        """Return a copy of the tensor.

        Args:
            memory: uint8, all bytes of the slot.
        """
        copy = bytearray(memory[self.offset : self.offset + self.nbytes])
        return self._replace(offset=0).over(copy)


def unnamed_file(label: str) -> int:
    """Return the descriptor of a new file without a name: a memfd where the system has them, else a temporary file.

    Args:
        label: Shown by the system's tools, such as `lsof`.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Slot:
    """Memory for one batch. The loader process writes it; the trainer maps it by its file descriptor.

    The file has no name (a memfd where the system has them, else an unlinked temporary file): the system frees it when
    both processes have exited, even if they were killed, and a small /dev/shm, as in containers, does not limit it. It
    is created for the first batch, and replaced by a larger one when a batch does not fit.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.fd = -1
        self.size = 0
        self.fresh = False
        """Whether the trainer has not mapped the current file yet."""
        self.moved = False
        """Whether `places` has changed since it was last sent to the trainer."""
        self.places: dict[str, Place] = {}
        """Location of each tensor last reserved."""
        self._memory: memoryview | None = None
        self._specs: dict[str, Spec] = {}
        self._spaces: dict[str, Space] = {}

    def reserve(self, specs: dict[str, Spec]) -> dict[str, Space]:
        if specs != self._specs:  # most batches have the specs of the previous one
            self._lay_out(specs)
        return self._spaces

    def _lay_out(self, specs: dict[str, Spec]) -> None:
        self.places, end = {}, 0
        for key, spec in specs.items():
            place = self.places[key] = Place(*spec, end, prod(spec.shape) * spec.dtype.itemsize)
            end += -(-place.nbytes // _ALIGN) * _ALIGN
        if self._memory is None or end > self.size:
            self._grow(end)
        assert self._memory is not None
        memory = self._memory
        self._spaces = {
            key: Space(place.over(memory), memory[place.offset :][: place.nbytes]) for key, place in self.places.items()
        }
        self._specs, self.moved = specs, True

    def _grow(self, size: int) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        page = HUGE if size >= HUGE else mmap.PAGESIZE
        self.size = max(1, -(-size // page)) * page
        self.fd = unnamed_file("calotype-slot")
        os.ftruncate(self.fd, self.size)
        self._memory = in_huge_pages(self.fd, self.size) or memoryview(mmap.mmap(self.fd, self.size))
        self.fresh = True
