"""The guard against NaN and inf: a step whose loss or gradient is not finite changes no weight, and is named.

Nothing here waits for the device in a step. The optimizer's fused kernel reads `found_inf` on the device and leaves
weights, moments and step count as they are where it is 1, as it does under PyTorch's `GradScaler`. Which steps those
were is read in `settle`, where the run waits for the device anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from calotype.errors import NotFiniteError

__all__ = ["MOST_UNSETTLED", "PATIENCE", "Guard", "Skipped", "Suspect", "check_weights", "guarded_adamw"]

PATIENCE: Final = 5
"""Steps in a row without a finite gradient that end a run: what is left of it would be no training."""
MOST_UNSETTLED: Final = 25
"""Steps after which `settle` is called at the latest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A sample of a step that was skipped."""

    batch: Any
    """As `Guard.loss` got it."""
    place: int
    """In the batch."""
    finite: bool
    """Whether its own loss is: then it is another's, or the gradient alone, that is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A step that changed no weight."""

    step: int
    """Its number, from 1."""
    samples: tuple[Suspect, ...]
    """All of them that this rank had."""


@dataclass(slots=True)
class _Step:
    losses: list[tuple[Any, Tensor]] = field(default_factory=list)
    """Each of its batches and its losses (B,)."""
    bad: Tensor | None = None
    """float32 (), 1 where the step is skipped."""


class Guard:
    """Skips the steps of one optimizer whose gradient is not finite.

    Args:
        optimizer: From `guarded_adamw`, not wrapped.
        step: Steps that were done before.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, step: int = 0) -> None:
        self.skipped = 0
        """Steps that `settle` has found."""
        self.in_a_row: list[int] = []
        """The numbers of those that nothing good has come after."""
        self._optimizer: Any = optimizer
        self._settled = step
        self._steps: list[_Step] = [_Step()]

    @property
    def unsettled(self) -> int:
        """Steps that were decided since the last `settle`."""
        return len(self._steps) - 1

    def loss(self, losses: Tensor, batch: Any) -> Tensor:
        """The mean of a batch's losses (B,), with gradients that are not finite either where it is not.

        So the gradients' norm alone decides, and the ranks, which average them, decide alike.

        Args:
            losses: Of each sample (B,).
            batch: What the batch is called in `settle`.
        """
        self._steps[-1].losses.append((batch, losses.detach()))
        mean = losses.mean()
        return mean * torch.where(mean.detach().isfinite(), 1.0, torch.nan)

    def decide(self, norm: Tensor) -> Tensor:
        """Decides whether the optimizer's next step happens.

        Args:
            norm: Of all gradients, before they were clipped ().

        Returns:
            float32 (): 1 where it is skipped, else 0.
        """
        bad = (~norm.isfinite()).float()
        self._optimizer.found_inf = self._steps[-1].bad = bad
        self._steps.append(_Step())
        return bad

    def settle(self) -> list[Skipped]:
        """The steps that were skipped since the last call, the same on all ranks; waits for the device."""
        done, self._steps = self._steps[:-1], self._steps[-1:]
        flags = torch.stack([step.bad for step in done if step.bad is not None]).tolist() if done else []
        found = []
        for number, (step, bad) in enumerate(zip(done, flags, strict=True), start=self._settled + 1):
            if not bad:
                self.in_a_row.clear()
                continue
            self.in_a_row.append(number)
            samples = [
                Suspect(batch=batch, place=place, finite=finite)
                for batch, losses in step.losses
                for place, finite in enumerate(losses.isfinite().tolist())
            ]
            found.append(Skipped(step=number, samples=tuple(samples)))
        self._settled += len(done)
        self.skipped += len(found)
        return found


def guarded_adamw(parameters: Iterable[torch.nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW whose steps a `Guard` can skip; a state that was saved without that loads all the same."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    optimizer.register_load_state_dict_pre_hook(_fused)
    return optimizer


def _fused(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    groups = [{**group, "fused": True, "foreach": False} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def check_weights(weights: Mapping[str, Tensor], *, where: str | Path, advice: str) -> None:
    """Refuses weights with NaN or inf among them; waits for the device.

    Raises:
        NotFiniteError: Names the first of them.
    """
    bad = [name for name, value in weights.items() if not value.isfinite().all()]
    if bad:
        raise NotFiniteError(
            f"{where}: {len(bad)} of {len(weights)} trained tensors hold NaN or inf, the first: {bad[0]}; {advice}"
        )
