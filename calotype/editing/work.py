"""`Work`: the progress of a change of many files, and its cancellation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from calotype.progress import Track, silent

__all__ = ["StoppedError", "Work"]

_PART: Final = 256


class StoppedError(Exception):
    """A change was cancelled."""


@dataclass(frozen=True, slots=True)
class Work:
    """How a change shows its progress, and is cancelled."""

    track: Track = silent
    stop: threading.Event = field(default_factory=threading.Event)
    """Set by another thread to cancel it."""

    def parts(self, what: str, total: int, *, unit: str = "images") -> Iterator[slice]:
        """Yield slices of `total` items, and show how many are done.

        Raises:
            StoppedError: It was cancelled; the items of the last slice are done.
        """
        with self.track(what, unit=unit) as show:
            for start in range(0, total, _PART):
                if self.stop.is_set():
                    raise StoppedError
                show(start, total)
                yield slice(start, min(start + _PART, total))
            show(total, total)
