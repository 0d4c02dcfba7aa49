"""Memory in pages of 2 MB: the kernel, which copies what is read into it, finds its way there with fewer look-ups."""

from __future__ import annotations

import ctypes
import mmap
import sys
from contextlib import suppress
from typing import Final

__all__ = ["HUGE", "in_huge_pages"]

HUGE: Final = 2 << 20
"""Bytes of such a page on x86 and, with pages of 4 kB, on ARM."""

_MAP_FIXED: Final = 0x10
_POPULATE_WRITE: Final = 23
_COLLAPSE: Final = 25
"""Linux's numbers, as in its `mman-common.h`; Python's mmap has no names for them."""


def in_huge_pages(fd: int, size: int) -> memoryview | None:
    """Maps a file in memory, in huge pages where the system can make them (Linux 6.1, `madvise(2)`: MADV_COLLAPSE).

    That takes some 5 ms for each page of it, once, and needs no setting nor right: what `transparent_hugepage` says is
    about pages that nobody asks for.

    Args:
        fd: Of a file of `size` bytes from `memfd_create`.
        size: A multiple of `HUGE`.

    Returns:
        Memory, in pages of the usual size if there are no others; None where it can't be tried.
    """
    if sys.platform != "linux" or not size or size % HUGE:
        return None
    # File and mapping have to begin at a multiple of a page. So room is made for one more, and the file takes the place
    # of a part of it; both go when the room goes.
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
