"""The ledger: what was left out or replaced, by name and with the reason. Nothing vanishes silently."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Ledger", "LedgerEntry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One thing that did not go the straight way."""

    kind: str
    """A short word to count by: `bad_row`, `no_caption`, `unreadable`, `too_small`, `remainder`, …"""

    id: str
    """The row's id, or `file:line` where there is no row yet."""

    reason: str
    """What was found, for a person."""


class Ledger:
    """An append-only list of entries, with a file behind it when asked.

    Args:
        path: A JSONL file that each entry is appended to as it comes.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path).expanduser() if path is not None else None
        self._entries: list[LedgerEntry] = []

    def add(self, kind: str, id: str, reason: str) -> None:
        self.append(LedgerEntry(kind=kind, id=id, reason=reason))

    def append(self, entry: LedgerEntry) -> None:
        self._entries.append(entry)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A name that is no UTF-8 has half characters, and JSON writes them as it does any: "\\udc80".
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")

    def counts(self) -> dict[str, int]:
        return dict(Counter(entry.kind for entry in self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[LedgerEntry]:
        return iter(self._entries)

    def __repr__(self) -> str:
        return f"Ledger({self.counts()})"
