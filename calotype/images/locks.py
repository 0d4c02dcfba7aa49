"""Locks that survive a fork: `ForkSafeLock`, and `Budget`, the memory that all threads may use for decoding."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["DECODING", "Budget", "ForkSafeLock"]

_MOST: Final = 4 << 30


class ForkSafeLock:
    """A `threading.Lock` that is released in a forked child. For module-level locks: each is registered for ever.

    A plain lock held by one thread while another forks stays locked in the child, and a loader's worker would hang.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Budget:
    """A limit of memory shared by threads: one that needs more than is free waits, first in, first out.

    It affects when an image is decoded, not the result. No thread waits while it holds memory, so there is no deadlock;
    a request above the limit runs alone. A forked child starts with all memory free.

    Args:
        limit: In bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.used = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._mine = threading.local()

    @contextmanager
    def take(self, size: int, *, kept: int = 0) -> Iterator[None]:
        """Wait for `size` bytes; the end of the block frees them.

        Args:
            size: In bytes.
            kept: Bytes that stay in use after the block, until the end of an enclosing `held`.
        """
        self._release_held()
        size = min(size, self.limit)
        self._acquire(size)
        try:
            yield
        except BaseException:
            self._release(size)
            raise
        kept = min(kept, size) if getattr(self._mine, "inside", False) else 0
        self._mine.held = kept
        self._release(size - kept)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Count what this thread keeps until the end of the block, or until its next `take`."""
        self._mine.inside = True
        try:
            yield
        finally:
            self._mine.inside = False
            self._release_held()

    def _release_held(self) -> None:
        held, self._mine.held = getattr(self._mine, "held", 0), 0
        if held:
            self._release(held)

    def _acquire(self, size: int) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                self._changed.wait_for(lambda: self._queue[0] is ticket and self.used + size <= self.limit)
                self.used += size
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _release(self, size: int) -> None:
        with self._changed:
            self.used -= size
            self._changed.notify_all()


def _limit() -> int:
    """Return 4 GiB, or a quarter of the machine's memory if that is less."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return _MOST
    return max(1 << 28, min(_MOST, memory // 4))


DECODING: Final = Budget(_limit())
"""Shared by all readers of this process."""
