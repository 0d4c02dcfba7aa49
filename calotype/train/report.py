"""The reports of a run: a line every few steps, and one report at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from calotype.terminal import time_text

if TYPE_CHECKING:
    from calotype.encodings.encoding_time import EncodingTime

__all__ = ["Clock", "Progress", "TrainReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The run at one step."""

    step: int
    max_steps: int
    loss: float
    """Mean of the steps since the last report."""
    lr: float
    images_per_second: float
    """Of all ranks, since this run or its resume began, without the time of encoding, saving and reporting."""
    data_wait: float
    """Share of that time in which the loop waited for its next batch, 0 to 1."""
    seconds_left: float
    """Estimated seconds to the last step."""

    def numbers(self) -> dict[str, float]:
        """Return the values that trackers log, by name."""
        names = ("loss", "lr", "images_per_second", "data_wait")
        return {name: getattr(self, name) for name in names}

    def figures(self) -> str:
        """Return loss, rate, wait and time left as text."""
        rate = self.images_per_second
        return (
            f"loss {self.loss:.4f}  {rate:.{2 if rate < 10 else 1 if rate < 100 else 0}f} images/s  "
            f"data wait {100 * self.data_wait:.1f} %"
            + (f"  {time_text(self.seconds_left)} left" if self.seconds_left else "")
        )

    def __str__(self) -> str:
        return f"step {self.step}/{self.max_steps}  {self.figures()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """The report of a finished run."""

    steps: int
    """Number of steps of the whole run, those before a resume included."""
    skipped: int = 0
    """Steps of this run, or since its resume, that changed no weight: their loss or gradient was NaN or inf."""
    first_loss: float | None
    """The first of `losses`; None if all steps were done before a resume."""
    last_loss: float | None
    """The last of `losses`."""
    losses: tuple[tuple[int, float], ...]
    """(step, mean loss of the steps since the report before)."""
    validation: tuple[tuple[int, float], ...]
    """(step, loss)."""
    images_per_second: float
    data_wait: float
    seconds: float
    result: str
    """The LoRA's file, or the network's folder."""
    samples: tuple[str, ...]
    """The last sample images."""
    ledger: Mapping[str, int] = field(default_factory=dict)
    """Number of ledger entries (images left out, replaced, …) by kind, of all ranks."""
    ledger_file: str | None = None
    """Path of the ledger, with the id and the reason of each entry."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Clock:
    """Measures the time of training steps; encoding, saving, samples, validation and the
    start of the loader are not counted.

    Args:
        encoding: The encoding that is done while training, in the time that the loop waits for batches; None if there
            is none.
    """

    def __init__(self, encoding: EncodingTime | None = None) -> None:
        self._encoding = encoding
        self._encoded = 0.0
        self.stepping = self.waiting = 0.0
        self.images = self.steps = 0
        self._began = self._at = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._began

    def start(self) -> None:
        """Begin a step."""
        self._at = time.perf_counter()
        self._encoded = self._encoding_seconds

    def got_batch(self, since: float, images: int) -> None:
        """Count a batch that was requested at `since` (`time.perf_counter`), and the time waited for it.

        Args:
            since: When it was requested, in seconds.
            images: Its number of images, on all ranks.
        """
        waited = time.perf_counter() - since
        encoded, self._encoded = self._encoding_seconds - self._encoded, self._encoding_seconds
        apart = encoded if self.images else waited  # the first batch waits for the start of the loader
        self.waiting += waited - apart
        self.stepping -= apart
        self.images += images

    def end(self) -> None:
        """End a step."""
        self.stepping += time.perf_counter() - self._at
        self.steps += 1

    @property
    def images_per_second(self) -> float:
        return self.images / self.stepping if self.stepping else 0.0

    @property
    def data_wait(self) -> float:
        return self.waiting / self.stepping if self.stepping else 0.0

    def progress(self, step: int, max_steps: int, *, loss: float, lr: float) -> Progress:
        """Return the run's progress at a step.

        Args:
            step: Number of finished steps.
            max_steps: Number of steps of the run.
            loss: Mean of the steps since the last report.
            lr: The learning rate.
        """
        return Progress(
            step=step,
            max_steps=max_steps,
            loss=loss,
            lr=lr,
            images_per_second=self.images_per_second,
            data_wait=self.data_wait,
            seconds_left=self._seconds_left(max_steps - step),
        )

    @property
    def _encoding_seconds(self) -> float:
        return 0.0 if self._encoding is None else self._encoding.seconds

    def _seconds_left(self, steps: int) -> float:
        """Estimate the seconds of further steps, which encode what they reach: maybe not all that is missing."""
        done = max(1, self.steps)
        encoding = 0.0 if self._encoding is None else self._encoding.seconds_left
        return min(encoding, steps * self._encoding_seconds / done) + steps * self.stepping / done
