"""A loader that looks at the clock: `train` runs over it, and it ends the run when enough was seen."""

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
"""Batches that are not counted: more than the loader has made ahead."""


class Enough(Exception):  # noqa: N818 - no error: how the loop is left
    """Enough steps were seen."""


@dataclass(slots=True)
class Laps:
    """When each batch was asked for and when it came, in seconds, and how many images it had.

    A lap is the time from one question to the next: the wait, and then the step.
    """

    asked: list[float] = field(default_factory=list)
    came: list[float] = field(default_factory=list)
    images: list[int] = field(default_factory=list)

    def pace(self, first: int, last: int) -> float:
        """Seconds an image, of the laps from `first` up to `last` (excluded)."""
        return (self.asked[last] - self.asked[first]) / sum(self.images[first:last])

    def wait(self, first: int, last: int) -> float:
        """The share of that time in which the loop waited for batches, 0 up to 1."""
        waited = sum(self.came[lap] - self.asked[lap] for lap in range(first, last))
        return waited / (self.asked[last] - self.asked[first])


class LapLoader(Loader):
    """A `Loader` with a clock: one epoch in which what is kept gets kept, then as many batches as are to be timed.

    Before each question the device finishes what it has, so that a wait is time in which it had nothing to do.

    Args:
        *args: The loader's.
        steps: Batches to time once all is warm.
        encode: Makes of each batch what the transformer is trained on, once it has come: part of the step.
        **options: The loader's.
    """

    def __init__(self, *args: Any, steps: int, encode: Callable[[Batch], Batch] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.laps = Laps()
        self.first = len(self)
        """Batches of the first epoch."""
        self.batches = self.first + WARM_UP + steps
        """Of the whole run."""
        self._encode = encode

    def __iter__(self) -> Iterator[Batch]:
        batches: Iterator[Batch] | None = None
        while True:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            asked = time.perf_counter()
            if len(self.laps.came) == self.batches:
                self.laps.asked.append(asked)
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

    @property
    def process(self) -> int | None:
        """The loader process, where there is one."""
        return self._source.pid if isinstance(self._source, ProcessSource) else None
