"""What came of a captioning run, in plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["CaptionFailure", "CaptionReport", "Example"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionFailure:
    """One caption that could not be had."""

    id: str
    kind: str
    """A short word to count by: that of the backend's answer, or of the image's error."""
    reason: str
    preset: str
    again: bool
    """It failed in an earlier run and was not asked for this time: `--retry-failed` would."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """Captions that a dry run shows."""

    id: str
    captions: tuple[str, ...]
    """What the backend said."""
    now: tuple[str, ...]
    """What the image has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionReport:
    """What a run did."""

    backend: str
    model: str
    images: int
    """Of the dataset, those marked as rejected left out."""
    asked: int
    """Captions that the backend gave or failed to give."""
    reused: int
    """Captions that the ledger had from earlier runs."""
    written: int
    """Images whose captions were changed."""
    kept: int
    """Images left alone because a person wrote their captions."""
    failures: tuple[CaptionFailure, ...]
    seconds: float
    backup: Path | None
    """Folder with the files as they were before."""
    examples: tuple[Example, ...] = ()
    """Of a dry run."""

    @property
    def failed(self) -> int:
        return len(self.failures)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"failed": self.failed, "backup": None if self.backup is None else str(self.backup)}
