"""End a run between two steps, on all ranks together, with a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

from calotype.train.interrupt import Interrupted, StopRequest
from calotype.train.ranks import AnyRank

__all__ = ["Ending"]


class Ending:
    """Saves a run's checkpoints, and ends the run after a signal to any of its ranks.

    Args:
        accelerator: The run's accelerator. All ranks create an instance at the same point.
        stop: The request of this rank.
        save: Writes a checkpoint of the current step on all ranks, and returns its folder.
    """

    def __init__(self, accelerator: Accelerator, stop: StopRequest, save: Callable[[], Path]) -> None:
        self._any_rank = AnyRank(accelerator)
        self._stop = stop
        self._save = save
        self._saved: tuple[int, Path] | None = None

    def asked(self) -> bool:
        """Return whether a signal has requested the end on any rank; all ranks call it at the same point."""
        return self._any_rank(self._stop.asked)

    def save(self, step: int) -> Path:
        """Write a checkpoint, unless the last one is of this step."""
        if self._saved is None or self._saved[0] != step:
            self._saved = step, self._save()
        return self._saved[1]

    def end_if_asked(self, step: int) -> None:
        """End the run if a signal has requested it; all ranks call it at the same point.

        Args:
            step: Number of finished steps.

        Raises:
            Interrupted: With the checkpoint of this step.
        """
        if self.asked():
            raise Interrupted(self._stop.number or signal.SIGTERM, step=step, checkpoint=self.save(step))
