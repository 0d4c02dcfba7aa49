"""What came of an encode job, as plain values. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from calotype.ledger import LedgerEntry

__all__ = ["EncodeReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeReport:
    """What came of a job. `to_json` gives it as plain values."""

    encoded: int
    """Records computed."""
    reused: int
    """Records that were there."""
    failed: int
    """Images that could not be read, images and texts whose encodings are not finite."""
    bytes: int
    """Written: tensors, without headers."""
    seconds: float
    failures: tuple[LedgerEntry, ...] = ()
    notes: tuple[LedgerEntry, ...] = ()
    """Captions that were cut when they were encoded; images that are enlarged."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"seconds": round(self.seconds, 3)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The report that `to_json` gave these values of."""
        entries = {name: tuple(LedgerEntry(**entry) for entry in document[name]) for name in ("failures", "notes")}
        return cls(**{**document, **entries})

    def again(self, seconds: float) -> Self:
        """What the same job says next time, when nothing has changed."""
        return replace(self, encoded=0, reused=self.encoded + self.reused, bytes=0, seconds=seconds)
