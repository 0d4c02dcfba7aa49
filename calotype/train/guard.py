"""Skip training steps whose loss or gradient is NaN or inf, name their samples, and end a run after several in a row.

No step waits for the device. The optimizer's fused kernel reads `found_inf` on the device and leaves weights, moments
and step count unchanged where it is 1, as under PyTorch's `GradScaler`. Which steps were skipped is read in `settle`,
where the run waits for the device anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from calotype.errors import CalotypeError, NotFiniteError
from calotype.ledger import LedgerEntry
from calotype.loader import Loader

__all__ = [
    "MOST_UNSETTLED",
    "PATIENCE",
    "Guard",
    "Skipped",
    "Suspect",
    "check_weights",
    "end_after_several",
    "guarded_adamw",
    "report_skipped",
]

PATIENCE: Final = 5
"""Steps in a row without a finite gradient that end a run."""
MOST_UNSETTLED: Final = 25
"""Steps after which `settle` is called at the latest."""
_NAMED: Final = 4
"""Maximum number of samples in a message; the ledger has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A sample of a skipped step."""

    batch: Any
    """As passed to `Guard.loss`."""
    row: int
    """Its index in the batch."""
    finite: bool
    """Whether its own loss is finite: then another sample's loss, or only the gradient, is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A step that changed no weight."""

    step: int
    """Its number, from 1."""
    samples: tuple[Suspect, ...]
    """All samples of this rank."""


@dataclass(slots=True)
class _Step:
    losses: list[tuple[Any, Tensor]] = field(default_factory=list)
    """Each of its batches with its losses (B,)."""
    bad: Tensor | None = None
    """float32 (), 1 where the step is skipped."""


class Guard:
    """Skips the steps of one optimizer whose gradient is not finite.

    Args:
        optimizer: From `guarded_adamw`, not wrapped by accelerate.
        step: Number of steps already done.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, step: int = 0) -> None:
        self.skipped = 0
        """Number of skipped steps that `settle` has found."""
        self.in_a_row: list[int] = []
        """The last skipped steps, with no good step after them."""
        self._optimizer: Any = optimizer
        self._settled = step
        self._steps: list[_Step] = [_Step()]

    @property
    def unsettled(self) -> int:
        """Number of steps decided since the last `settle`."""
        return len(self._steps) - 1

    def loss(self, losses: Tensor, batch: Any) -> Tensor:
        """Average a batch's losses; where the mean is not finite, its gradients are made NaN too.

        The norm of the gradients alone then decides, and the ranks, which average gradients, decide alike.

        Args:
            losses: Loss of each sample (B,).
            batch: Identifies the batch in `settle`.

        Returns:
            The mean ().
        """
        self._steps[-1].losses.append((batch, losses.detach()))
        mean = losses.mean()  # (B,) → ()
        return mean * torch.where(mean.detach().isfinite(), 1.0, torch.nan)

    def decide(self, norm: Tensor) -> Tensor:
        """Decide whether the optimizer's next step happens.

        Args:
            norm: Norm of all gradients before clipping, ().

        Returns:
            float32 (): 1 where the step is skipped, else 0.
        """
        bad = (~norm.isfinite()).float()
        self._optimizer.found_inf = self._steps[-1].bad = bad
        self._steps.append(_Step())
        return bad

    def settle(self) -> list[Skipped]:
        """Return the steps skipped since the last call, the same on all ranks. Waits for the device."""
        done, self._steps = self._steps[:-1], self._steps[-1:]
        flags = torch.stack([step.bad for step in done if step.bad is not None]).tolist() if done else []
        found = []
        for number, (step, bad) in enumerate(zip(done, flags, strict=True), start=self._settled + 1):
            if not bad:
                self.in_a_row.clear()
                continue
            self.in_a_row.append(number)
            samples = [
                Suspect(batch=batch, row=row, finite=finite)
                for batch, losses in step.losses
                for row, finite in enumerate(losses.isfinite().tolist())
            ]
            found.append(Skipped(step=number, samples=tuple(samples)))
        self._settled += len(done)
        self.skipped += len(found)
        return found


def guarded_adamw(parameters: Iterable[torch.nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Make a fused AdamW, whose steps a `Guard` can skip; it also loads the state of an AdamW that is not fused."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    optimizer.register_load_state_dict_pre_hook(_fused)
    return optimizer


def _fused(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    groups = [{**group, "fused": True, "foreach": False} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def check_weights(weights: Mapping[str, Tensor], *, where: str | Path, advice: str) -> None:
    """Refuse weights with NaN or inf. Waits for the device.

    Args:
        weights: The trained tensors, by name.
        where: Their place in the error: a checkpoint, or a step.
        advice: End of the error.

    Raises:
        NotFiniteError: Names the first such tensor.
    """
    bad = [name for name, value in weights.items() if not value.isfinite().all()]
    if bad:
        raise NotFiniteError(
            f"{where}: {len(bad)} of {len(weights)} trained tensors hold NaN or inf, the first: {bad[0]}; {advice}"
        )


def report_skipped(
    accelerator: Accelerator, guard: Guard, loader: Loader, *, checkpoints: Path, say: Callable[[str], None]
) -> None:
    """Name the samples of the steps skipped since the last call. Every rank calls it at the same step.

    Args:
        accelerator: The run's accelerator.
        guard: The guard, whose batches are the loader's `given`.
        loader: Maps batches to samples, which are appended to its ledger.
        checkpoints: The run's folder of checkpoints.
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
        if accelerator.is_main_process:  # the ranks of a run share one ledger file
            for entry in entries:
                loader.ledger.append(entry)
        names = [entry.id for entry in entries]
        why = f"{names[0]}: {entries[0].reason}" if len(names) == 1 else f"one of {_named(names)}"
        say(f"note: step {one.step} was skipped, no weight changed: NaN or inf: {why}")
    end_after_several(guard, checkpoints=checkpoints, samples=names)


def end_after_several(guard: Guard, *, checkpoints: Path, samples: list[str]) -> None:
    """End a run whose last `PATIENCE` steps were skipped.

    Args:
        guard: The guard, after `settle`.
        checkpoints: The run's folder of checkpoints.
        samples: Ids of the last step's samples; empty if unknown.

    Raises:
        NotFiniteError: The run ends.
    """
    if len(guard.in_a_row) < PATIENCE:
        return
    last = f" (samples of the last: {_named(samples)})" if samples else ""
    newest = max(checkpoints.glob("step-*"), default=None)
    good = "There is no checkpoint yet" if newest is None else f"The last good checkpoint is {newest}"
    raise NotFiniteError(
        f"loss or gradient was NaN or inf in each of the steps {guard.in_a_row[0]} to {guard.in_a_row[-1]}{last}; no "
        f"weight changed. {good}. A lower learning_rate or mixed_precision: no may help; `calotype cache verify` finds "
        "damaged encodings"
    )


def _entry(loader: Loader, sample: Suspect, step: int) -> LedgerEntry:
    key = loader.keys_of(sample.batch)[sample.row]
    (id,) = loader.dataset.ids(key.index, key.index + 1)
    try:
        parts = loader.dataset[key].items()
    except CalotypeError as error:  # another sample replaced it in the batch
        return LedgerEntry(kind="not_finite", id=id, reason=f"step {step}: {error}")
    bad = [name for name, value in parts if isinstance(value, Tensor) and not value.isfinite().all()]
    what = f"its {', '.join(bad)} hold NaN or inf" if bad else f"its {'gradient' if sample.finite else 'loss'}"
    return LedgerEntry(kind="not_finite", id=id, reason=f"step {step}: {what}")


def _named(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
