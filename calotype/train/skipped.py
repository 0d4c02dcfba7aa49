"""What is said of steps that were skipped: which samples they had, what of these is not finite, and when to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from calotype.errors import CalotypeError, NotFiniteError
from calotype.ledger import LedgerEntry
from calotype.loader import Loader
from calotype.train.guard import PATIENCE, Guard, Suspect

__all__ = ["end_after_several", "report_skipped"]

_NAMED: Final = 4
"""Samples that a message names; the ledger has all."""


def report_skipped(
    accelerator: Accelerator, guard: Guard, loader: Loader, *, checkpoints: Path, say: Callable[[str], None]
) -> None:
    """Names the samples of the steps that were skipped since the last call; every rank calls it at the same step.

    Args:
        accelerator: Of the run.
        guard: Which steps. Its batches are the loader's `given`.
        loader: Knows the samples; its ledger takes them.
        checkpoints: The folder of the run's.
        say: Called with a line for each step, on the main process.

    Raises:
        NotFiniteError: `PATIENCE` steps in a row were skipped.
    """
    names: list[str] = []
    for one in guard.settle():
        every: list[tuple[bool, LedgerEntry]] = gather_object(
            [(sample.finite, _entry(loader, sample, one.step)) for sample in one.samples]
        )
        entries = [entry for finite, entry in every if not finite] or [entry for _, entry in every]
        if accelerator.is_main_process:  # the ranks of a run write to one ledger
            for entry in entries:
                loader.ledger.append(entry)
        names = [entry.id for entry in entries]
        why = f"{names[0]}: {entries[0].reason}" if len(names) == 1 else f"one of {_named(names)}"
        say(f"note: step {one.step} was skipped, no weight changed: NaN or inf: {why}")
    end_after_several(guard, checkpoints=checkpoints, samples=names)


def end_after_several(guard: Guard, *, checkpoints: Path, samples: list[str]) -> None:
    """Ends a run whose last `PATIENCE` steps were skipped.

    Args:
        guard: Which steps; it is settled.
        checkpoints: The folder of the run's.
        samples: The names of the last step's, where they are known.

    Raises:
        NotFiniteError: The run ends.
    """
    if len(guard.in_a_row) < PATIENCE:
        return
    last = f" (samples of the last: {_named(samples)})" if samples else ""
    raise NotFiniteError(
        f"loss or gradient was NaN or inf in each of the steps {guard.in_a_row[0]} to {guard.in_a_row[-1]}{last}; no "
        f"weight changed. {_kept(checkpoints)}. A lower learning_rate or mixed_precision: no may help; `calotype cache "
        "verify` finds damaged encodings"
    )


def _entry(loader: Loader, sample: Suspect, step: int) -> LedgerEntry:
    key = loader.keys_of(sample.batch)[sample.place]
    (id,) = loader.dataset.ids(key.index, key.index + 1)
    try:
        parts = loader.dataset[key].items()
    except CalotypeError as error:  # another took its place in the batch
        return LedgerEntry(kind="not_finite", id=id, reason=f"step {step}: {error}")
    bad = [name for name, value in parts if isinstance(value, torch.Tensor) and not value.isfinite().all()]
    what = f"its {', '.join(bad)} hold NaN or inf" if bad else f"its {'gradient' if sample.finite else 'loss'}"
    return LedgerEntry(kind="not_finite", id=id, reason=f"step {step}: {what}")


def _named(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _kept(checkpoints: Path) -> str:
    last = max(checkpoints.glob("step-*"), default=None)
    return "There is no checkpoint yet" if last is None else f"The last good checkpoint is {last}"
