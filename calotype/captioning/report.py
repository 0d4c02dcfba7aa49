"""`CaptionReport`: the result of a captioning run as plain values."""

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
    """Kind of the error: that of the backend's answer or of the image's error."""
    reason: str
    preset: str
    again: bool
    """Whether it failed in an earlier run and was not retried; `--retry-failed` retries it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """The captions of one image in a dry run."""

    id: str
    captions: tuple[str, ...]
    """The generated captions."""
    now: tuple[str, ...]
    """The image's current captions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionReport:
    """The result of a run."""

    backend: str
    model: str
    images: int
    """Number of images in the dataset, without rejected ones."""
    asked: int
    """Number of prompts that the backend ran, with or without a caption."""
    reused: int
    """Number of captions from earlier runs in the ledger."""
    written: int
    """Number of images whose captions were changed."""
    kept: int
    """Number of images whose captions are unchanged because a person wrote them."""
    failures: tuple[CaptionFailure, ...]
    seconds: float
    backup: Path | None
    """Folder with copies of the files before the change."""
    examples: tuple[Example, ...] = ()
    """Images of a dry run."""

    @property
    def failed(self) -> int:
        return len(self.failures)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"failed": self.failed, "backup": None if self.backup is None else str(self.backup)}
