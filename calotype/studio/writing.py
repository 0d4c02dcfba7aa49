"""`Writing`: a change of many files in progress, as the page shows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from calotype.editing import Work
from calotype.progress import Show

__all__ = ["Writing"]


class Writing:
    """The progress of one change; thread-safe.

    Args:
        label: The change, for display.
        can_stop: Whether it can be cancelled.
    """

    def __init__(self, label: str, *, can_stop: bool) -> None:
        self._label, self._can_stop = label, can_stop
        self._stop = threading.Event()
        self._step = {"what": "", "unit": "", "done": 0, "total": 0, "seconds_left": None}
        self.work = Work(track=self._track, stop=self._stop)

    def cancel(self) -> None:
        """Cancel it: what has been written stays, as one step of the history."""
        if self._can_stop:
            self._stop.set()

    def summary(self) -> dict[str, Any]:
        """Return it for the page."""
        return {"label": self._label, "can_stop": self._can_stop, "stopping": self._stop.is_set(), **self._step}

    @contextmanager
    def _track(self, what: str, *, unit: str = "images") -> Iterator[Show]:
        start = time.monotonic()

        def show(done: int, total: int) -> None:
            left = (time.monotonic() - start) / done * (total - done) if done else None
            self._step = {"what": what, "unit": unit, "done": done, "total": total, "seconds_left": left}

        yield show
