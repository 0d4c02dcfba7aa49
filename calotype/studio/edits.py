"""Changes of captions and marks: written where they are, never over what somebody else has written, and undoable."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from calotype.editing import Captions, CaptionState, Change
from calotype.errors import EditError
from calotype.studio.history import History, Step
from calotype.studio.replace import Change as Replacement
from calotype.studio.replace import find_and_replace
from calotype.studio.rows import Rows, RowState

__all__ = ["Edit", "Editor", "Outcome", "Plan"]

_MANY: Final = 20
"""Rows from which on the files are copied before they are changed."""
_PLANS: Final = 8
_EXAMPLES: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """What a person wants a row to be."""

    number: int
    version: str
    """Of the state that the person saw."""
    captions: tuple[str, ...] | None = None
    """None: as they are."""
    rejected: bool | None = None


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What came of a change."""

    label: str | None = None
    """What was done; None where there was nothing to do."""
    changed: list[int] = field(default_factory=list)
    """Rows that were written."""
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    """Rows that are not as expected, as they are."""
    backup: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A find-and-replace that has been looked at and not done yet."""

    id: str
    label: str
    edits: tuple[Edit, ...]
    replacements: tuple[Replacement, ...]
    numbers: tuple[int, ...]
    """Which row each `Replacement.row` is."""

    def summary(self, rows: Rows) -> dict[str, Any]:
        """For the page."""
        return {
            "plan": self.id,
            "rows": len(self.edits),
            "captions": len(self.replacements),
            "occurrences": sum(len(one.spans) for one in self.replacements),
            "emptied": sum(not one.after.strip() for one in self.replacements),
            "examples": [
                {
                    "n": self.numbers[one.row],
                    "id": rows.ids[self.numbers[one.row]],
                    "caption": one.caption,
                    "before": one.before,
                    "after": one.after,
                    "spans": [list(span) for span in one.spans],
                }
                for one in self.replacements[:_EXAMPLES]
            ],
        }


class Editor:
    """The only one here who writes captions; one change at a time.

    Args:
        rows: Are told what was written.
        captions: Writes; None where captions can only be read.
        why_not: Why that is so.
    """

    def __init__(self, rows: Rows, captions: Captions | None, *, why_not: str | None = None) -> None:
        self.history = History()
        self.lock = threading.RLock()
        """Held while something is written; whoever compares the disk with the rows holds it too."""
        self._rows, self._captions, self._why_not = rows, captions, why_not
        self._plans: dict[str, Plan] = {}
        self.expected: frozenset[int] = frozenset()
        """Rows that a captioning run writes: their new captions are no news from outside."""

    def edit(
        self, edits: Sequence[Edit], *, label: str, group: str | None = None, backup: bool | None = None
    ) -> Outcome:
        """Writes what a person wants, as one step of the history.

        Args:
            edits: Of different rows.
            label: What is done, for the history.
            group: See `Step.group`.
            backup: Copy the files first; by default from 20 rows on.

        Raises:
            EditError: Captions can't be written here, or not these. Nothing was.
        """
        with self.lock:
            before = {edit.number: _row_state(self._rows.state(edit.number)) for edit in edits}
            outcome = self._write(edits, backup=backup)
            after = {number: _row_state(self._rows.state(number)) for number in outcome.changed}
            changes = {number: (before[number], after[number]) for number in after if before[number] != after[number]}
            if changes:
                self.history.record(Step(label=label, changes=changes, group=group))
            outcome.label = label
            return outcome

    def undo(self) -> Outcome:
        """Takes back the last step, but for rows that somebody else has changed since. Raises as `edit` does."""
        with self.lock:
            step = self.history.last_done()
            return self._go(step, wanted=0, found=1, by=-1)

    def redo(self) -> Outcome:
        """Does again what was undone last. Raises as `edit` does."""
        with self.lock:
            step = self.history.next_undone()
            return self._go(step, wanted=1, found=0, by=1)

    def plan(
        self, numbers: Sequence[int], find: str, replacement: str, *, regex: bool = False, ignore_case: bool = False
    ) -> Plan:
        """Looks what a find-and-replace would do; `apply` does it.

        Args:
            numbers: The rows; those whose captions can't be changed are passed over.
            find: As for `find_and_replace`, like the rest.
            replacement: See there.
            regex: See there.
            ignore_case: See there.

        Raises:
            ReplaceError: The pattern or replacement can't be used.
        """
        numbers = [number for number in numbers if self._rows.state(number).problem is None]
        states = {number: self._rows.state(number) for number in numbers}
        found = find_and_replace(
            [state.captions for state in states.values()], find, replacement, regex=regex, ignore_case=ignore_case
        )
        captions: dict[int, list[str]] = {}
        for one in found:
            number = numbers[one.row]
            captions.setdefault(number, list(states[number].captions))[one.caption] = one.after
        plan = Plan(
            id=secrets.token_hex(8),
            label=f"replace “{_short(find)}” by “{_short(replacement)}”",
            edits=tuple(
                Edit(number=number, version=states[number].version, captions=tuple(texts))
                for number, texts in captions.items()
            ),
            replacements=tuple(found),
            numbers=tuple(numbers),
        )
        with self.lock:
            self._plans[plan.id] = plan
            for old in list(self._plans)[:-_PLANS]:
                del self._plans[old]
        return plan

    def apply(self, plan_id: str) -> Outcome:
        """Does what was planned, with a backup; rows that have changed since are conflicts.

        Raises:
            KeyError: There is no such plan any more.
            EditError: As for `edit`.
        """
        with self.lock:
            plan = self._plans.pop(plan_id)
            return self.edit(plan.edits, label=plan.label, backup=True)

    def _go(self, step: Step | None, *, wanted: int, found: int, by: int) -> Outcome:
        if step is None:
            return Outcome()
        edits, others = [], []
        for number, states in step.changes.items():
            state = self._rows.state(number)
            if _row_state(state) != states[found]:
                others.append(self._conflict(number, state))
                continue
            target: RowState = states[wanted]
            edits.append(Edit(number=number, version=state.version, captions=target.captions, rejected=target.rejected))
        outcome = self._write(edits)
        self.history.move(by)
        outcome.label = step.label
        outcome.conflicts += others
        return outcome

    def _write(self, edits: Sequence[Edit], *, backup: bool | None = None) -> Outcome:
        if self._captions is None:
            raise EditError(self._why_not or "captions can't be changed here")
        ids = self._rows.ids
        changes = {ids[edit.number]: Change(captions=edit.captions, rejected=edit.rejected) for edit in edits}
        written = self._captions.write(
            changes,
            expect={ids[edit.number]: edit.version for edit in edits},
            backup=len(edits) >= _MANY if backup is None else backup,
        )
        outcome = Outcome(backup=written.backup)
        for edit in edits:
            id = ids[edit.number]
            if id in written.states:
                self._rows.set_state(edit.number, written.states[id])
                outcome.changed.append(edit.number)
            else:
                state = written.conflicts.get(id)
                self.found(edit.number, state)
                outcome.conflicts.append(self._conflict(edit.number, state))
        return outcome

    def found(self, number: int, state: CaptionState | None) -> None:
        """Takes over what the disk holds of a row, and tells of it if it is new; None: nothing any more."""
        if state is None:
            if not self._rows.missing(number):
                self._rows.set_missing(number, True)
                self._rows.tell(number, "gone")
        elif state.version != self._rows.state(number).version or state.problem != self._rows.state(number).problem:
            self._rows.set_state(number, state)
            if number not in self.expected:
                self._rows.tell(number, "captions")

    def _conflict(self, number: int, state: CaptionState | None) -> dict[str, Any]:
        known = state if state is not None else self._rows.state(number)
        return {
            "n": number,
            "version": known.version,
            "captions": list(known.captions),
            "rejected": known.rejected,
            "missing": state is None or self._rows.missing(number),
        }


def _row_state(state: CaptionState) -> RowState:
    return RowState(captions=state.captions, rejected=state.rejected)


def _short(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:29]}…"
