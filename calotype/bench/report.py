"""The report of a bench: a row for each strategy, and the recommended one. Plain values, needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from calotype.terminal import time_text

__all__ = ["BenchReport", "BenchRow", "Recommendation", "break_even", "recommend"]

WORTH: Final = 0.10
"""Fraction of the whole training's time that a longer config must save to be recommended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """The figures of one strategy. They are None if it does not run; `refused` is the reason."""

    strategy: str
    title: str
    config: tuple[str, ...]
    """Lines of its config, as `section.key: value`."""
    refused: str | None = None
    images_per_second: float | None = None
    """Throughput with warm caches."""
    data_wait: float | None = None
    """Share of that time in which the step waited for its batch, 0 to 1."""
    host_bytes: int | None = None
    """Peak memory of the trainer and its loader process, extrapolated to the whole dataset for caches in memory."""
    device_bytes: int | None = None
    """Peak memory allocated by torch on the GPU, extrapolated likewise; None without a GPU."""
    disk_bytes: int = 0
    """Size of its files on disk, for the whole dataset."""
    prepare_seconds: float = 0.0
    """Time before the first step, for the whole dataset."""
    first_epoch_seconds: float | None = None
    """Time of the first epoch."""
    epoch_seconds: float | None = None
    """Time of each further epoch."""
    break_even_epochs: int | None = None
    """Number of epochs from which on it takes no longer than no cache; None if an epoch is not shorter."""
    notes: tuple[str, ...] = ()

    def seconds(self, epochs: int) -> float:
        """Return the time of a training of `epochs` epochs, in seconds."""
        assert self.epoch_seconds is not None and self.first_epoch_seconds is not None
        return self.prepare_seconds + self.first_epoch_seconds + (epochs - 1) * self.epoch_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The recommended strategy, with the reason."""

    strategy: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """The result of a bench."""

    model: str
    pictures: int
    """Number of usable images."""
    samples: int
    """Samples of an epoch: images times their repeats."""
    measured_pictures: int
    """Number of measured images; figures for the whole dataset are extrapolated from them."""
    batch_size: int
    steps: int
    """Most timed batches of each strategy."""
    epochs: int
    """Number of epochs of the config's training."""
    device: str
    machine: str
    rows: tuple[BenchRow, ...]
    recommendation: Recommendation | None
    """None if no strategy runs."""

    def to_json(self) -> dict[str, Any]:
        return {"version": 1} | asdict(self)


def break_even(row: BenchRow, nothing: BenchRow) -> int | None:
    """Return the number of epochs, 1 or more, from which on `row` takes no longer than `nothing`, no cache.

    It is the smallest E with prepare + first + (E − 1) · epoch ≤ first₀ + (E − 1) · epoch₀; None where epoch ≥ epoch₀.
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
    """Recommend the simplest strategy that is about as fast as the fastest.

    Of the strategies that run and fit in memory, it is the one with the fewest lines of config whose training takes at
    most 10 % longer than the fastest one's.

    Args:
        rows: The measured strategies, ordered from the simplest.
        epochs: Number of epochs of the training.
        host_room: The machine's memory in bytes; None is unlimited.
        device_room: The GPU's memory in bytes; None is unlimited.
    """
    # Choose among those that fit.
    running = [row for row in rows if row.refused is None]
    fitting = [row for row in running if _fits(row.host_bytes, host_room) and _fits(row.device_bytes, device_room)]
    if not fitting:
        return None
    fastest = min(fitting, key=lambda row: row.seconds(epochs))
    enough = fastest.seconds(epochs) * (1 + WORTH)
    best = min((row for row in fitting if row.seconds(epochs) <= enough), key=lambda row: len(row.config))

    # Write the reason.
    reasons = [f"{time_text(best.seconds(epochs))} for the {epochs:,} epochs of this config"]
    nothing = next((row for row in running if row.strategy == "none"), None)
    if best is nothing:
        reasons[0] += ", and no cache makes that more than a tenth shorter"
    elif nothing is not None:
        reasons[0] += f", {time_text(nothing.seconds(epochs))} with nothing"
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


def _fits(wanted: int | None, room: int | None) -> bool:
    return wanted is None or room is None or wanted <= room
