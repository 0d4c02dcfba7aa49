"""`History`: the steps of undo and redo, in the server's memory, so that they survive a reload of the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from calotype.studio.rows import RowState

__all__ = ["History", "Step"]

_MAX_STEPS: Final = 500
_MAX_ROWS: Final = 1_000_000
"""Maximum rows of all steps: a few hundred megabytes of memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A change of one or more rows."""

    label: str
    """The change, for display."""
    changes: Mapping[int, tuple[RowState, RowState]]
    """Row number → (before, after)."""
    group: str | None = None
    """Consecutive changes of one row with the same group are merged, such as those of one editing session."""
    at: float = field(default_factory=time.time)
    """Seconds since the epoch."""


class History:
    """The steps; the first `position` are done, the others are undone. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: list[Step] = []
        self._position = 0

    def record(
        self, label: str, before: Mapping[int, RowState], after: Mapping[int, RowState], *, group: str | None = None
    ) -> None:
        """Add a step that was done, unless no row has changed. Undone steps are dropped.

        Args:
            label: See `Step`.
            before: Row number → its state before the step.
            after: The same after it; rows that are not in it have not changed.
            group: See `Step`.
        """
        changes = {number: (before[number], state) for number, state in after.items() if before[number] != state}
        if not changes:
            return
        step = Step(label=label, changes=changes, group=group)
        with self._lock:
            del self._steps[self._position :]
            last = self._steps[-1] if self._steps else None
            if last is not None and step.group is not None and step.group == last.group and _same_row(last, step):
                self._steps[-1:] = _joined(last, step)
            else:
                self._steps.append(step)
            while len(self._steps) > 1 and (len(self._steps) > _MAX_STEPS or self._rows() > _MAX_ROWS):
                del self._steps[0]
            self._position = len(self._steps)

    def last_done(self) -> Step | None:
        """Return the step that undo reverts."""
        with self._lock:
            return self._steps[self._position - 1] if self._position else None

    def next_undone(self) -> Step | None:
        """Return the step that redo repeats."""
        with self._lock:
            return self._steps[self._position] if self._position < len(self._steps) else None

    def move(self, by: int) -> None:
        """Move the position: -1 after undo, 1 after redo."""
        with self._lock:
            self._position = min(max(self._position + by, 0), len(self._steps))

    def summary(self) -> dict[str, Any]:
        """Return the labels for the page's buttons."""
        with self._lock:
            done, undone = self._steps[: self._position], self._steps[self._position :]
            return {
                "undo": done[-1].label if done else None,
                "redo": undone[0].label if undone else None,
                "steps": len(self._steps),
            }

    def steps(self) -> list[dict[str, Any]]:
        """Return all steps for the page, oldest first."""
        with self._lock:
            return [
                {"label": step.label, "rows": len(step.changes), "at": step.at, "undone": index >= self._position}
                for index, step in enumerate(self._steps)
            ]

    def _rows(self) -> int:
        return sum(len(step.changes) for step in self._steps)


def _same_row(one: Step, other: Step) -> bool:
    return len(one.changes) == 1 and one.changes.keys() == other.changes.keys()


def _joined(first: Step, second: Step) -> list[Step]:
    """Merge two steps; the result is empty where the second reverts the first."""
    ((row, (before, _)),) = first.changes.items()
    after = second.changes[row][1]
    return [] if before == after else [replace(second, changes={row: (before, after)})]
