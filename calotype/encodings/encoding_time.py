"""`EncodingTime`: the encoding that is done while training: how long it took, and how much is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from calotype.progress import Show, track

__all__ = ["EncodingTime"]


class EncodingTime:
    """Counts and shows the records that are encoded while training.

    Args:
        missing: Number of records to encode.
    """

    def __init__(self, missing: int) -> None:
        self.missing = missing
        self.done = 0
        self.seconds = 0.0
        """Time that encoding took so far, the loading of the models included."""
        self._bar = ExitStack()
        self._show: Show | None = None

    @property
    def seconds_left(self) -> float:
        """Seconds that the missing records will take; 0 before the first ones."""
        return self.missing * self.seconds / self.done if self.done else 0.0

    @contextmanager
    def measured(self, count: int) -> Iterator[None]:
        """Measure the encoding of some records."""
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start
        self.done += count
        self.missing = max(0, self.missing - count)

    @contextmanager
    def batch(self, count: int) -> Iterator[None]:
        """Measure the encoding of some records, and show on standard error how many are done."""
        if self._show is None:
            self._show = self._bar.enter_context(track("encoding images and captions", unit="records"))
            self._show(self.done, self.done + self.missing)
        with self.measured(count):
            yield
        self._show(self.done, self.done + self.missing)

    def close(self) -> None:
        """End the display; the next batch begins another one."""
        self._bar.close()
        self._show = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the display, which stays in this process."""
        return self.__dict__ | {"_bar": ExitStack(), "_show": None}
