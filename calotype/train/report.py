"""What a run says of itself: lines while it goes, and one report when it is done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Clock", "Progress", "TrainReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The run at one step."""

    step: int
    max_steps: int
    loss: float
    """Mean of the steps since the last one that was shown."""
    lr: float
    images_per_second: float
    """Of all ranks, since this run or its resume began; saving and showing left out."""
    data_wait: float
    """Share of that time in which the loop waited for its next batch, 0 up to 1."""
    seconds_left: float

    def __str__(self) -> str:
        return (
            f"step {self.step}/{self.max_steps}  loss {self.loss:.4f}  {self.images_per_second:.2f} images/s  "
            f"waiting for data {100 * self.data_wait:.1f} %  {_span(self.seconds_left)} left"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What came of a run."""

    steps: int
    """Of the whole run."""
    skipped: int = 0
    """Of them, those since it began or was resumed that changed no weight, their loss or gradient being NaN or inf."""
    first_loss: float | None
    """Mean of the first and of the last steps that were shown together; None where a resume left nothing to do."""
    last_loss: float | None
    losses: tuple[tuple[int, float], ...]
    """(step, mean loss of the steps up to it since the one before)."""
    validation: tuple[tuple[int, float], ...]
    """(step, loss)."""
    images_per_second: float
    data_wait: float
    seconds: float
    result: str
    """The LoRA's file, or the network's folder."""
    samples: tuple[str, ...]
    """The images that were made last."""
    ledger: Mapping[str, int] = field(default_factory=dict)
    """How many images were left out, replaced, repeated, cut in their captions, …: by kind, on all ranks together."""
    ledger_file: str | None = None
    """Where each of them is named, with the reason."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Clock:
    """Where the time of the steps goes. What is not a step (saving, samples, validation) is not counted."""

    def __init__(self) -> None:
        self.stepping = self.waiting = 0.0
        self.images = self.steps = 0
        self._began = self._at = time.perf_counter()

    @property
    def seconds(self) -> float:
        """All of it."""
        return time.perf_counter() - self._began

    def start(self) -> None:
        """A step begins."""
        self._at = time.perf_counter()

    def got_batch(self, since: float, images: int) -> None:
        """A batch came, asked for at `since` (`time.perf_counter`)."""
        self.waiting += time.perf_counter() - since
        self.images += images

    def end(self) -> None:
        """The step is done."""
        self.stepping += time.perf_counter() - self._at
        self.steps += 1

    @property
    def images_per_second(self) -> float:
        return self.images / self.stepping if self.stepping else 0.0

    @property
    def data_wait(self) -> float:
        return self.waiting / self.stepping if self.stepping else 0.0

    def progress(self, step: int, max_steps: int, *, loss: float, lr: float) -> Progress:
        """The run at one step."""
        return Progress(
            step=step,
            max_steps=max_steps,
            loss=loss,
            lr=lr,
            images_per_second=self.images_per_second,
            data_wait=self.data_wait,
            seconds_left=(max_steps - step) * self.stepping / self.steps if self.steps else 0.0,
        )


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"
