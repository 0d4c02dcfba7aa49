"""Slots: batch-sized pieces of memory that the loader process and the trainer both see."""

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

__all__ = ["LEASES", "Place", "Slot"]

LEASES = 2
"""Batches that the trainer may hold as views of slots: the one in use and the one that takes its place."""

_ALIGN = 64


class Place(NamedTuple):
    """Where a tensor of a batch is in its slot."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    def over(self, memory: memoryview | bytearray | NDArray[Any]) -> torch.Tensor:
        """The tensor in a mapping of the slot, which lives as long as it; its storage is its own bytes and no more."""
        if not self.nbytes:
            return torch.empty(self.shape, dtype=self.dtype)
        count = self.nbytes // self.dtype.itemsize
        return torch.frombuffer(memory, dtype=self.dtype, count=count, offset=self.offset).view(self.shape)

    def copied(self, memory: NDArray[Any]) -> torch.Tensor:
        """The tensor in memory of its own."""
        copy = bytearray(memory[self.offset : self.offset + self.nbytes])
        return self._replace(offset=0).over(copy)


class Slot:
    """Memory for one batch, written by the loader process and mapped by the trainer through a file descriptor.

    The file has no name (memfd where there is one, else an unlinked temporary file): nothing stays behind
    when both processes are gone, however they went, and a small /dev/shm, as in containers, is no limit.
    It is made when the first batch comes and made anew, larger, when one does not fit.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.fd = -1
        self.size = 0
        self.fresh = False
        """Whether the trainer has yet to map the present file."""
        self.moved = False
        """Whether the trainer has yet to hear of the present places."""
        self.places: dict[str, Place] = {}
        """Of the tensors reserved last."""
        self._memory: memoryview | None = None
        self._specs: dict[str, Spec] = {}
        self._spaces: dict[str, Space] = {}

    def reserve(self, specs: dict[str, Spec]) -> dict[str, Space]:
        if specs != self._specs:  # most batches look like the one before
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
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("calotype-slot")
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        os.ftruncate(self.fd, self.size)
        self._memory = in_huge_pages(self.fd, self.size) or memoryview(mmap.mmap(self.fd, self.size))
        self.fresh = True
