"""Slots: batch-sized pieces of memory that the loader process and the trainer both see."""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np
import torch

__all__ = ["LEASES", "Slot", "attach"]

LEASES = 2
"""Batches that the trainer may hold as views of slots: the one in use and the one that takes its place."""

_ALIGN = 64


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
        self.offsets: list[int] = []
        """Of the tensors reserved last."""
        self._map: mmap.mmap | None = None

    def reserve(self, sizes: list[int]) -> list[torch.Tensor]:
        ends = np.cumsum([-(-size // _ALIGN) * _ALIGN for size in sizes]).tolist()
        self.offsets = [0, *ends[:-1]]
        if not self._map or ends[-1] > self.size:
            self._grow(ends[-1])
        return [attach(self._map, offset, size) for offset, size in zip(self.offsets, sizes, strict=True)]

    def _grow(self, size: int) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("calotype-slot")
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        os.ftruncate(self.fd, self.size)
        self._map = mmap.mmap(self.fd, self.size)
        self.fresh = True


def attach(memory: mmap.mmap | None, offset: int, size: int) -> torch.Tensor:
    """A uint8 tensor over part of a mapping; its storage is that part and no more."""
    assert memory is not None
    return torch.from_numpy(np.frombuffer(memory, dtype=np.uint8, count=size, offset=offset))
