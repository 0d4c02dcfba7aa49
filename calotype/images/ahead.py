"""`FetchAhead`: fetches images before their readers want them, over many connections and in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Final

from calotype.core.daemon_pool import DaemonPool
from calotype.types import ImageRef

__all__ = ["Begun", "FetchAhead"]

_MOST_BYTES: Final = 256 << 20
"""Of images that are fetched and not yet taken: with more, nothing new is begun."""


class FetchAhead:
    """Fetches what `begin` is given, in that order, in threads of its own.

    Args:
        connections: Images fetched at a time.
    """

    def __init__(self, connections: int) -> None:
        self._most = connections
        self._pool = DaemonPool(connections, "calotype-fetch")
        self._lock = threading.RLock()  # the garbage collector may delete a `Begun` while it is held
        self._waiting: deque[tuple[Future[bytes], Callable[[], bytes]]] = deque()
        self._running = 0
        self._held = 0
        """Bytes fetched and not yet taken."""

    def begin(self, refs: Iterable[ImageRef], read: Callable[[ImageRef], bytes]) -> Begun:
        """Begin to fetch images by URL.

        Args:
            refs: The images; those without a URL are left out.
            read: Fetches one.
        """
        begun = Begun(self._take)
        with self._lock:
            for ref in refs:
                if ref.url is not None:
                    future: Future[bytes] = Future()
                    begun.add(ref.url, future)
                    self._waiting.append((future, lambda ref=ref: read(ref)))  # type: ignore[misc]
            self._start()
        return begun

    def _start(self) -> None:
        """Start what waits, within the limits. The lock is held."""
        while self._waiting and self._running < self._most and self._held < _MOST_BYTES:
            future, fetch = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                self._running += 1
                self._pool.submit(self._fetch, future, fetch)

    def _fetch(self, future: Future[bytes], fetch: Callable[[], bytes]) -> None:
        data, failure = b"", None
        try:
            data = fetch()
        except BaseException as error:
            failure = error
        with self._lock:
            self._running -= 1
            self._held += len(data)
            self._start()
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(data)

    def _take(self, future: Future[bytes]) -> None:
        """Note that the result of a finished fetch is no longer held here."""
        if future.exception() is None:
            with self._lock:
                self._held -= len(future.result())
                self._start()


class Begun:
    """Images that are being fetched. What is not taken is given up with this object."""

    def __init__(self, taken: Callable[[Future[bytes]], None]) -> None:
        self._taken = taken
        self._futures: dict[str, deque[Future[bytes]]] = {}

    def add(self, url: str, future: Future[bytes]) -> None:
        self._futures.setdefault(url, deque()).append(future)

    def take(self, url: str) -> bytes | None:
        """Return an image, once: wait for it if it is on its way. None if it is not: then the caller fetches it.

        Raises:
            Exception: As the fetch raised.
        """
        try:
            future = self._futures[url].popleft()
        except (KeyError, IndexError):
            return None
        if future.cancel():
            return None
        try:
            return future.result()
        finally:
            future.add_done_callback(self._taken)  # at once, unless Ctrl-C ended the wait

    def __del__(self) -> None:
        for futures in self._futures.values():
            for future in futures:
                if not future.cancel():
                    future.add_done_callback(self._taken)
