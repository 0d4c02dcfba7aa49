"""`StartingSource`: prepares the first batches in threads of this process, while the loader process starts."""

from __future__ import annotations

from collections.abc import Callable

import torch

from calotype.loader.plan import Cursor
from calotype.loader.process import Setup, packed
from calotype.loader.source import Delivered, ProcessSource, ThreadSource

__all__ = ["StartingSource"]


class StartingSource:
    """Batches from a loader process, and from threads of this process until that has started.

    The process takes a second or more to start, most of it to import torch; the first batch need not wait for that.
    All sources return the same batches, bit for bit, so it does not matter when one takes over from the other: the
    process continues after the batches that the threads have begun.

    A loop that takes batches as fast as they come would keep all cores busy with the threads, and the process would
    start in twice the time: after the first batch, one thread is left.

    The threads report no error: the process prepares the batch again, and reports its own.

    Args:
        setup: Dataset, plan and options.
        on_map: As for `ProcessSource`.
    """

    def __init__(self, setup: Setup, *, on_map: Callable[[torch.Tensor], None] | None = None) -> None:
        self._process = ProcessSource(setup, on_map=on_map)
        self._threads: ThreadSource | None = ThreadSource(setup)
        self._handing_over = False
        """Whether the process has started, and the threads only complete the batches that they have begun."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def seek(self, cursor: Cursor) -> None:
        if self._handing_over:
            self._end_threads()
        (self._threads or self._process).seek(cursor)

    def next(self) -> Delivered:
        if self._threads is not None and not self._handing_over and self._process.opened():
            self._process.seek(self._threads.stop())
            self._handing_over = True
        threads = self._preparing()
        if threads is not None and (delivered := self._of_threads(threads)) is not None:
            return delivered
        self._end_threads()
        return self._process.next()

    def ready(self) -> bool:
        return (self._preparing() or self._process).ready()

    def release(self) -> None:
        self._process.release()

    def close(self) -> None:
        self._process.close()
        self._end_threads()

    def _preparing(self) -> ThreadSource | None:
        """Return the threads if they prepare the next batch."""
        threads = self._threads
        return threads if threads is not None and (threads.begun or not self._handing_over) else None

    def _of_threads(self, threads: ThreadSource) -> Delivered | None:
        """Return the next batch of the threads; None, and the process continues with it, if there is an error."""
        cursor = threads.cursor
        try:
            delivered = threads.next()
            packed({key: value for key, value in delivered.batch.items() if not isinstance(value, torch.Tensor)})
            threads.leave_one()
        except Exception:
            self._process.seek(cursor)
            return None
        return delivered

    def _end_threads(self) -> None:
        if self._threads is not None:
            self._threads.close()
            self._threads, self._handing_over = None, False
