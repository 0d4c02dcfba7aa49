"""`DaemonPool`: an executor whose threads never delay the end of the program, such as those that wait for a server."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["DaemonPool"]

T = TypeVar("T")
R = TypeVar("R")

_IDLE = 2.0
"""Seconds after which a thread without work ends."""


_QUEUED = 64
"""Calls of `unordered` that wait for a thread: then threads need not wait for the one that takes the results."""


class DaemonPool(Executor):
    """Calls functions in up to `most` daemon threads, started as needed.

    `concurrent.futures.ThreadPoolExecutor` waits for its threads when the program ends and when its block is left by
    Ctrl-C: for seconds, where a server is silent. Here, a block that an exception leaves cancels what has not begun,
    and waits for nothing.

    Args:
        most: Threads at a time.
        name: Of the threads.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._changed = threading.Condition()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads = self._idle = 0
        self._closed = False

    def submit(self, function: Callable[..., R], /, *args: Any, **options: Any) -> Future[R]:
        future: Future[R] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._calls.append((future, lambda: function(*args, **options)))
            if self._idle >= len(self._calls):
                self._changed.notify()
            elif self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._run, name=f"{self._name}_{self._threads}", daemon=True).start()
        return future

    def unordered(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Yield (item, result) as they come, so that a slow one delays no other; an error ends it.

        Items are taken as threads become free, a few dozen ahead.
        """
        done: SimpleQueue[tuple[T, Future[R]]] = SimpleQueue()
        running = 0
        left = iter(items)
        futures: set[Future[R]] = set()
        try:
            while True:
                for item in left:
                    future = self.submit(function, item)
                    futures.add(future)
                    future.add_done_callback(lambda future, item=item: done.put((item, future)))  # type: ignore[misc]
                    running += 1
                    if running >= self._most + _QUEUED:
                        break
                if not running:
                    return
                item, future = done.get()
                futures.discard(future)
                running -= 1
                yield item, future.result()
        finally:
            for future in futures:
                future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._changed:
            self._closed = True
            if cancel_futures:
                for future, _ in self._calls:
                    future.cancel()
            self._changed.notify_all()
            if wait:
                self._changed.wait_for(lambda: not self._threads)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown(wait=kind is None, cancel_futures=kind is not None)

    def _run(self) -> None:
        while (found := self._next()) is not None:
            future, call = found
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del future, call, found  # a waiting thread keeps nothing alive

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        """Wait for a call; None once the pool is closed, or nothing came for a while: then this thread ends."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._calls or self._closed, timeout=_IDLE)
            self._idle -= 1
            if self._calls:
                return self._calls.popleft()
            self._threads -= 1
            self._changed.notify_all()
            return None
