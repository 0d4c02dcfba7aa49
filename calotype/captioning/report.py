"""`CaptionReport`: the result of a captioning run, in plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["CaptionFailure", "CaptionReport", "Example"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionFailure:
    """One caption that failed."""

    id: str
    kind: str
    """A short word: that of the backend's answer or of the image's error."""
    reason: str
    preset: str
    again: bool
    """It failed in an earlier run and was not retried; `--retry-failed` does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """The captions of one image in a dry run."""

    id: str
    captions: tuple[str, ...]
    """The generated captions."""
    now: tuple[str, ...]
    """The captions that the image has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionReport:
    """The result of a run."""

    backend: str
    model: str
    images: int
    """Images of the dataset, without rejected ones."""
    asked: int
    """Prompts that the backend has run, with or without a caption."""
    reused: int
    """Captions from earlier runs in the ledger."""
    written: int
    """Images whose captions were changed."""
    kept: int
    """Images that keep their captions because a person wrote them."""
    failures: tuple[CaptionFailure, ...]
    seconds: float
    backup: Path | None
    """Folder with the files before the change."""
    examples: tuple[Example, ...] = ()
    """Of a dry run."""

    @property
    def failed(self) -> int:
        return len(self.failures)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"failed": self.failed, "backup": None if self.backup is None else str(self.backup)}
