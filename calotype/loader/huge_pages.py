"""Memory maps in huge pages (2 MB): fewer TLB misses when the kernel copies file contents into them."""

from __future__ import annotations

import ctypes
import mmap
import sys
from contextlib import suppress
from typing import Final

__all__ = ["HUGE", "in_huge_pages"]

HUGE: Final = 2 << 20
"""Bytes of a huge page on x86, and on ARM with base pages of 4 kB."""

_MAP_FIXED: Final = 0x10
_POPULATE_WRITE: Final = 23
_COLLAPSE: Final = 25
"""Values of MAP_FIXED, MADV_POPULATE_WRITE and MADV_COLLAPSE in Linux's `mman-common.h`; Python's mmap lacks them."""


def in_huge_pages(fd: int, size: int) -> memoryview | None:
    """Map a file into memory, in huge pages where the system supports it (Linux 6.1, `madvise(2)`: MADV_COLLAPSE).

    Takes about 5 ms for each huge page, once. Needs no system setting and no privilege: `transparent_hugepage` governs
    only huge pages that no process requested.

    Args:
        fd: Descriptor of a file of `size` bytes, from `memfd_create`.
        size: In bytes. With a size that is not a multiple of `HUGE`, nothing is mapped.

    Returns:
        The memory, in base pages if the kernel has no huge ones; None if this platform or size does not allow it, or
        the mapping fails.
    """
    if sys.platform != "linux" or not size or size % HUGE:
        return None
    # The mapping has to begin at a multiple of a huge page. So reserve one page more of anonymous memory, and map the
    # file over the aligned part of it. Python unmaps both together.
    room = mmap.mmap(-1, size + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(room))
    start = -begin % HUGE
    system = ctypes.CDLL(None)
    system.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_ssize_t]
    system.mmap.restype = ctypes.c_void_p
    access, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED
    if system.mmap(begin + start, size, access, flags, fd, 0) != begin + start:
        return None
    with suppress(OSError):
        room.madvise(_POPULATE_WRITE, start, size)
        room.madvise(_COLLAPSE, start, size)
    return memoryview(room)[start : start + size]
