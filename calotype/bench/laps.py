"""A loader that measures the time of training steps, and ends the run after a number of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from calotype.loader import Loader
from calotype.loader.source import ProcessSource
from calotype.types import Batch

__all__ = ["WARM_UP", "Enough", "LapLoader", "Laps"]

WARM_UP = 3
"""Number of batches that are not timed: more than the loader prefetches."""


_LONGEST = 5.0
"""Seconds after which no further batch is timed, once there are as many as for the warm-up."""


class Enough(Exception):  # noqa: N818 - no error: it ends the loop
    """Enough steps were timed."""


@dataclass(slots=True)
class Laps:
    """The times in seconds at which each batch was requested and returned, and its number of images.

    A lap is the time from one request to the next: the wait for the batch, then the step.
    """

    asked: list[float] = field(default_factory=list)
    came: list[float] = field(default_factory=list)
    images: list[int] = field(default_factory=list)

    def pace(self, first: int, last: int) -> float:
        """Return the seconds for each image, of the laps from `first` up to `last` (excluded)."""
        return (self.asked[last] - self.asked[first]) / sum(self.images[first:last])

    def wait(self, first: int, last: int) -> float:
        """Return the share of that time in which the loop waited for batches, 0 to 1."""
        waited = sum(self.came[lap] - self.asked[lap] for lap in range(first, last))
        return waited / (self.asked[last] - self.asked[first])


class LapLoader(Loader):
    """A `Loader` that times its batches: an epoch that fills the caches, then `steps` timed batches, or 5 s of them.

    The device is synchronized before each request, so it is idle during a wait.

    Args:
        *args: Arguments of `Loader`.
        steps: Number of timed batches.
        encode: Encodes each batch to the transformer's inputs, as part of the step.
        **options: Keyword arguments of `Loader`.
    """

    def __init__(self, *args: Any, steps: int, encode: Callable[[Batch], Batch] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.laps = Laps()
        self.first = len(self)
        """Number of batches of the first epoch."""
        self.batches = self.first + WARM_UP + steps
        """Number of batches of the whole run."""
        self._encode = encode

    def __iter__(self) -> Iterator[Batch]:
        batches: Iterator[Batch] | None = None
        while True:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            asked = time.perf_counter()
            if len(self.laps.came) == self.batches or self._is_long(asked):
                self.laps.asked.append(asked)
                self.batches = len(self.laps.came)
                raise Enough
            if batches is None:
                batches = super().__iter__()
            if (batch := next(batches, None)) is None:
                return
            self.laps.asked.append(asked)
            self.laps.came.append(time.perf_counter())
            batch = batch if self._encode is None else self._encode(batch)
            self.laps.images.append(len(batch["latents"]))
            yield batch

    def _is_long(self, now: float) -> bool:
        """Return whether batches were timed for long enough."""
        start = self.first + WARM_UP
        return len(self.laps.came) >= start + WARM_UP and now - self.laps.asked[start] > _LONGEST

    @property
    def process(self) -> int | None:
        """Id of the loader process, if there is one."""
        return self._source.pid if isinstance(self._source, ProcessSource) else None
