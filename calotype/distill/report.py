"""The report of a distillation: `report.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from calotype.distill.scores import Scores

__all__ = ["DistillReport"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillReport:
    """The report of a finished run."""

    result: str
    """The student's folder, for `calotype caption … --backend transformers --model`."""
    student: str
    """The student before training: its name with a revision or fingerprint."""
    teacher: Mapping[str, Any]
    """The source of the captions: `Lessons.teacher`."""
    presets: tuple[str, ...]
    """Names of the presets."""
    examples: int
    """Number of captions of an epoch."""
    held_out: int
    """Number of scored prompts about held-out images."""
    left_out: Mapping[str, int]
    """Number of images that were left out, by kind."""
    steps: int
    """Number of steps of the whole run, those before a resume included."""
    losses: tuple[tuple[int, float], ...]
    """(step, mean loss of the steps since the report before)."""
    validation: tuple[tuple[int, float], ...]
    """(step, loss on held-out images)."""
    before: Scores | None
    """Scores before training; None if nothing was held out."""
    after: Scores | None
    """Scores after training; None if nothing was held out."""
    images_per_second: float
    """Of all ranks, in training."""
    data_wait: float
    """Share of that time in which the loop waited for its next batch, 0 to 1."""
    seconds: float
    options: Mapping[str, Any]
    """The `distill` section."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        if self.before is None or self.after is None:
            return f"{self.result}: trained on {self.examples} captions"
        return (
            f"{self.result}: BLEU {self.before.bleu:.1f} → {self.after.bleu:.1f}, chrF {self.before.chrf:.1f} → "
            f"{self.after.chrf:.1f} on {self.held_out} held-out questions"
        )
