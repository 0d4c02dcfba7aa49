"""What a bench found: a row for each strategy, and the one that is worth it. Plain values, needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["BenchReport", "BenchRow", "Recommendation", "break_even", "recommend"]

WORTH: Final = 0.10
"""By what share of the whole training's time a longer config has to be faster before it is worth it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """One strategy. The figures are None where it does not run, and `refused` says why."""

    strategy: str
    title: str
    config: tuple[str, ...]
    """The lines that it takes."""
    refused: str | None = None
    images_per_second: float | None = None
    """Once all that is kept is there."""
    data_wait: float | None = None
    """The share of that time in which the step waited for its batch, 0 up to 1."""
    host_bytes: int | None = None
    """Peak memory of the trainer and its loader process, with all images of the dataset kept where some are."""
    device_bytes: int | None = None
    """Likewise on the GPU, as torch allocated it; None without one."""
    disk_bytes: int = 0
    """What it keeps on disk of the whole dataset."""
    prepare_seconds: float = 0.0
    """Before the first step, for the whole dataset."""
    first_epoch_seconds: float | None = None
    epoch_seconds: float | None = None
    """Each further one."""
    break_even_epochs: int | None = None
    """From how many epochs on it has taken no longer than nothing; None where an epoch is not shorter."""
    notes: tuple[str, ...] = ()

    def seconds(self, epochs: int) -> float:
        """All that training for so many epochs takes."""
        assert self.epoch_seconds is not None and self.first_epoch_seconds is not None
        return self.prepare_seconds + self.first_epoch_seconds + (epochs - 1) * self.epoch_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The strategy to use, and why."""

    strategy: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """What came of a bench."""

    model: str
    pictures: int
    """That can be used."""
    samples: int
    """An epoch: images times their repeats."""
    measured_pictures: int
    """That the steps were taken on; what the others take is reckoned from these."""
    batch_size: int
    steps: int
    """Batches that were timed, of each strategy."""
    epochs: int
    """Of the training that the config describes."""
    device: str
    machine: str
    rows: tuple[BenchRow, ...]
    recommendation: Recommendation | None
    """None where nothing runs."""

    def to_json(self) -> dict[str, Any]:
        return {"version": 1} | asdict(self)


def break_even(row: BenchRow, nothing: BenchRow) -> int | None:
    """The number of epochs, 1 or more, from which on `row` has taken no longer than `nothing`.

    The smallest E with prepare + first + (E − 1) · epoch ≤ first₀ + (E − 1) · epoch₀; None where epoch ≥ epoch₀.
    """
    if None in (row.epoch_seconds, nothing.epoch_seconds):
        return None
    assert row.epoch_seconds is not None and nothing.epoch_seconds is not None
    gained = nothing.epoch_seconds - row.epoch_seconds
    behind = max(0.0, row.seconds(1) - nothing.seconds(1))
    return 1 + math.ceil(behind / gained) if gained > 0 else None


def recommend(
    rows: Sequence[BenchRow], epochs: int, *, host_room: int | None = None, device_room: int | None = None
) -> Recommendation | None:
    """The simplest strategy that is about as fast as the fastest, for a training of so many epochs.

    Of those that run and fit, the one that needs the fewest lines of config and whose training takes at most 10 %
    longer than the fastest's.

    Args:
        rows: What was measured, from the simplest on.
        epochs: Of the training.
        host_room: Bytes of memory that the machine has.
        device_room: Likewise its GPU.
    """
    running = [row for row in rows if row.refused is None]
    fitting = [row for row in running if _fits(row.host_bytes, host_room) and _fits(row.device_bytes, device_room)]
    if not fitting:
        return None
    fastest = min(fitting, key=lambda row: row.seconds(epochs))
    enough = fastest.seconds(epochs) * (1 + WORTH)
    best = min((row for row in fitting if row.seconds(epochs) <= enough), key=lambda row: len(row.config))
    reasons = [f"{span(best.seconds(epochs))} for the {epochs:,} epochs of this config"]
    nothing = next((row for row in running if row.strategy == "none"), None)
    if best is nothing:
        reasons[0] += ", and no cache makes that more than a tenth shorter"
    elif nothing is not None:
        reasons[0] += f", {span(nothing.seconds(epochs))} with nothing"
    elif any(row.strategy == "none" for row in rows):
        reasons[0] += "; with nothing it does not run here"
    if best is not nothing and fastest is not best:
        reasons.append(f"{fastest.title} is faster by less than a tenth and takes more config")
    if best.data_wait is not None:
        reasons.append(f"{100 * best.data_wait:.1f} % of a step waits for data")
    tight = [row.title for row in running if row not in fitting]
    if tight:
        reasons.append(f"not enough memory here for {', '.join(tight)}")
    return Recommendation(strategy=best.strategy, reason="; ".join(reasons))


def span(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _fits(wanted: int | None, room: int | None) -> bool:
    return wanted is None or room is None or wanted <= room
