"""`Hosts`: how many requests each host has at a time, and how long it asked all of them to wait."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Hosts"]


class Hosts:
    """Limits the requests to each host, for all threads of this process.

    Args:
        most: Requests to one host at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._active: Counter[str] = Counter()
        self._until: dict[str, float] = {}
        """Host → the time, on the clock of `time.monotonic`, before which no new request is sent to it."""

    @contextmanager
    def turn(self, host: str, *, retry: bool) -> Iterator[None]:
        """Wait until a request to a host may be sent; the end of the block ends the request.

        Args:
            host: Its name and port.
            retry: Whether this thread has waited as long as the host asked.
        """
        with self._changed:
            wait = 0.0 if retry else self._until.get(host, 0.0) - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        with self._changed:
            self._changed.wait_for(lambda: self._active[host] < self._most)
            self._active[host] += 1
        try:
            yield
        finally:
            with self._changed:
                self._active[host] -= 1
                if not self._active[host]:
                    del self._active[host]
                self._changed.notify_all()

    def pause(self, host: str, seconds: float) -> None:
        """Send no new request to a host for some seconds."""
        with self._changed:
            self._until[host] = max(self._until.get(host, 0.0), time.monotonic() + seconds)
