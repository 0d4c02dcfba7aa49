"""Undo and redo: what each change of captions replaced, and by what. Kept on the server, so that a reload keeps it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from calotype.studio.rows import RowState

__all__ = ["History", "Step"]

_MOST_STEPS: Final = 500
_MOST_ROWS: Final = 1_000_000
"""Of all steps together: some hundred megabytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One change of one or more rows."""

    label: str
    """What was done, as it is shown."""
    changes: Mapping[int, tuple[RowState, RowState]]
    """Row number → (before, after)."""
    group: str | None = None
    """Changes of one group in a row, of one and the same row, are one step: what is typed in one sitting."""
    at: float = field(default_factory=time.time)
    """Seconds since the epoch."""


class History:
    """The steps, of which the first `position` are done and the others undone. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: list[Step] = []
        self._position = 0

    def record(self, step: Step) -> None:
        """Adds a step that has been done; what was undone before it can't be redone any more."""
        with self._lock:
            del self._steps[self._position :]
            last = self._steps[-1] if self._steps else None
            if last is not None and step.group is not None and step.group == last.group and _same_row(last, step):
                self._steps[-1:] = _joined(last, step)
            else:
                self._steps.append(step)
            while len(self._steps) > 1 and (len(self._steps) > _MOST_STEPS or self._rows() > _MOST_ROWS):
                del self._steps[0]
            self._position = len(self._steps)

    def last_done(self) -> Step | None:
        """What undoing would take back."""
        with self._lock:
            return self._steps[self._position - 1] if self._position else None

    def next_undone(self) -> Step | None:
        """What redoing would do again."""
        with self._lock:
            return self._steps[self._position] if self._position < len(self._steps) else None

    def move(self, by: int) -> None:
        """-1 once a step has been undone, 1 once it has been redone."""
        with self._lock:
            self._position = min(max(self._position + by, 0), len(self._steps))

    def summary(self) -> dict[str, Any]:
        """For the page's buttons."""
        with self._lock:
            done, undone = self._steps[: self._position], self._steps[self._position :]
            return {
                "undo": done[-1].label if done else None,
                "redo": undone[0].label if undone else None,
                "steps": len(self._steps),
            }

    def steps(self) -> list[dict[str, Any]]:
        """All of them for the page, the oldest first."""
        with self._lock:
            return [
                {"label": step.label, "rows": len(step.changes), "at": step.at, "undone": place >= self._position}
                for place, step in enumerate(self._steps)
            ]

    def _rows(self) -> int:
        return sum(len(step.changes) for step in self._steps)


def _same_row(one: Step, other: Step) -> bool:
    return len(one.changes) == 1 and one.changes.keys() == other.changes.keys()


def _joined(first: Step, second: Step) -> list[Step]:
    """One step in place of two; none where the second has taken back what the first did."""
    ((row, (before, _)),) = first.changes.items()
    after = second.changes[row][1]
    return [] if before == after else [replace(second, changes={row: (before, after)})]
