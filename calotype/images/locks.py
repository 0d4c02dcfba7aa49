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
    """`with lock:` as for `threading.Lock`. For module-wide locks only: each is registered for good.

    A plain lock that some thread holds while another forks stays shut in the child for ever, and a loader's worker
    would hang there.
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
    """A number of bytes that threads share: whoever wants more than is left waits, in the order of asking.

    It decides when an image is decoded, never what comes out. Nobody waits while holding a part, so there is no
    deadlock; a part larger than the whole is had alone. A forked child begins with all of it.

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
        """Waits for `size` bytes; they are free again at the end of the block, however it ends.

        Args:
            size: In bytes.
            kept: How many of them go on to be used after it, until the end of a `held` around it.
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
        """What this thread takes inside and keeps counts until the end of the block, or until it takes anew."""
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
    """4 GiB, or a quarter of a small machine's memory."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return _MOST
    return max(1 << 28, min(_MOST, memory // 4))


DECODING: Final = Budget(_limit())
"""Of every reader of this process."""
