"""`EncodeReport`: the result of an encode job, as plain values. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from calotype.ledger import LedgerEntry

__all__ = ["EncodeReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeReport:
    """The result of an encode job."""

    encoded: int
    """Number of records computed."""
    reused: int
    """Number of records that were already stored."""
    failed: int
    """Number of images that could not be read, and of images and texts whose encodings are not finite."""
    bytes: int
    """Bytes of the tensors written, without headers."""
    seconds: float
    """Duration of the job."""
    failures: tuple[LedgerEntry, ...] = ()
    """An entry for each failed item."""
    notes: tuple[LedgerEntry, ...] = ()
    """Entries for captions truncated when they were encoded, for images that are enlarged, and the like."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the report from the result of `to_json`."""
        entries = {name: tuple(LedgerEntry(**entry) for entry in document[name]) for name in ("failures", "notes")}
        return cls(**{**document, **entries})

    def again(self, seconds: float) -> Self:
        """Return the report of the same job run again, if nothing has changed."""
        return replace(self, encoded=0, reused=self.encoded + self.reused, bytes=0, seconds=seconds)
