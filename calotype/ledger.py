"""`Ledger`: the record of images and rows that were left out or replaced, each with its reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Ledger", "LedgerEntry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One image or row that was left out or changed."""

    kind: str
    """A short identifier to count by: `bad_row`, `no_caption`, `unreadable`, `too_small`, `remainder`, …"""

    id: str
    """Id of the row, or `file:line` if there is no row."""

    reason: str
    """What was found."""


class Ledger:
    """An append-only list of entries, optionally written to a file.

    Args:
        path: JSONL file to which each entry is appended at once.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path).expanduser() if path is not None else None
        self._entries: list[LedgerEntry] = []

    def add(self, kind: str, id: str, reason: str) -> None:
        """Append an entry of these fields."""
        self.append(LedgerEntry(kind=kind, id=id, reason=reason))

    def append(self, entry: LedgerEntry) -> None:
        self._entries.append(entry)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Names that are not UTF-8 have surrogates, which are written as "\\udc80".
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")

    def counts(self) -> dict[str, int]:
        """Return kind → number of entries."""
        return dict(Counter(entry.kind for entry in self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[LedgerEntry]:
        return iter(self._entries)

    def __repr__(self) -> str:
        return f"Ledger({self.counts()})"
