"""A lock for module-wide state that a forked child always finds open."""

from __future__ import annotations

import os
import threading

__all__ = ["ForkSafeLock"]


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
