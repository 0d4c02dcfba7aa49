"""`Editor`: writes captions and rejection marks to disk, detects conflicts, and records the undo history."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from calotype.core.file_state import FileState
from calotype.editing import Captions, CaptionState, Change
from calotype.errors import EditError
from calotype.studio.history import History, Step
from calotype.studio.replace import Change as Replacement
from calotype.studio.replace import find_and_replace
from calotype.studio.rows import Rows, RowState
from calotype.studio.tagging import TagChange
from calotype.studio.writing import Writing

__all__ = ["Edit", "Editor", "Outcome", "Plan"]

_BACKUP_ROWS: Final = 20
"""Minimum number of rows of a change that is backed up."""
_MAX_PLANS: Final = 8
_EXAMPLES: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """New values of one row."""

    number: int
    version: str
    """Version of the state that the person edited."""
    captions: tuple[str, ...] | None = None
    """None: unchanged."""
    rejected: bool | None = None


@dataclass(kw_only=True, slots=True)
class Outcome:
    """The result of a change."""

    label: str | None = None
    """Label of the change; None if nothing was changed."""
    changed: list[int] = field(default_factory=list)
    """Rows that were written."""
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    """Rows that another program has changed, in their current state."""
    backup: Path | None = None
    stopped: bool = False
    """Whether it was cancelled: the other rows are as before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A find-and-replace that was previewed and not applied yet."""

    id: str
    label: str
    edits: tuple[Edit, ...]
    replacements: tuple[Replacement, ...]
    numbers: tuple[int, ...]
    """Row number of each `Replacement.row`."""

    def summary(self, rows: Rows) -> dict[str, Any]:
        """Return the preview for the page."""
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
    """Writes captions, one change at a time.

    Args:
        rows: Updated with what was written.
        captions: Writes the files; None where captions are read-only.
        why_not: Why they are read-only.
    """

    def __init__(self, rows: Rows, captions: Captions | None, *, why_not: str | None = None) -> None:
        self.history = History()
        self.lock = threading.RLock()
        """Held during writes, and while the disk is compared with the rows."""
        self._rows, self._captions, self._why_not = rows, captions, why_not
        self._plans: dict[str, Plan] = {}
        self.expected: frozenset[int] = frozenset()
        """Rows of the current captioning run: their new captions are not reported as external changes."""
        self.written: dict[str, FileState] = {}
        """File → its state as the editor wrote it; the watcher takes these, so that it does not read them again."""
        self.writing: Writing | None = None
        """The change in progress."""

    def edit(
        self, edits: Sequence[Edit], *, label: str, group: str | None = None, backup: bool | None = None
    ) -> Outcome:
        """Write edits as one step of the history.

        Args:
            edits: The edits, of distinct rows.
            label: Label of the step in the history.
            group: See `Step.group`.
            backup: Copy the files first. Default: for 20 rows or more.

        Raises:
            EditError: The captions can't be written; none are changed.
        """
        with self.lock:
            before = {edit.number: RowState.of(self._rows.state(edit.number)) for edit in edits}
            outcome = self._write(edits, Writing(label, can_stop=True), backup=backup)
            after = {number: RowState.of(self._rows.state(number)) for number in outcome.changed}
            self.history.record(label, before, after, group=group)
            outcome.label = label
            return outcome

    def reject(self, numbers: Sequence[int], rejected: bool) -> Outcome:
        """Reject images, or restore them, as one step. Raises as `edit` does."""
        self._rows.ensure(numbers)
        states = ((number, self._rows.state(number)) for number in numbers)
        edits = [
            Edit(number=number, version=state.version, rejected=rejected)
            for number, state in states
            if state.rejected is not rejected
        ]
        verb = "reject" if rejected else "restore"
        return self._all(edits, f"{verb} {len(edits):,} {'image' if len(edits) == 1 else 'images'}")

    def change_tags(self, numbers: Sequence[int], change: TagChange) -> Outcome:
        """Change a tag or word in the captions of many images, as one step. Raises as `edit` does."""
        self._rows.ensure(numbers)
        edits = []
        for number in numbers:
            state = self._rows.state(number)
            captions = change.captions(state.captions)
            if state.problem is None and captions != (state.captions or ("",)):
                edits.append(Edit(number=number, version=state.version, captions=captions))
        return self._all(edits, change.label)

    def _all(self, edits: Sequence[Edit], label: str) -> Outcome:
        return self.edit(edits, label=label) if edits else Outcome()

    def undo(self) -> Outcome:
        """Undo the last step, except for rows that another program has changed since. Raises as `edit` does."""
        with self.lock:
            step = self.history.last_done()
            return self._go(step, wanted=0, found=1, by=-1)

    def redo(self) -> Outcome:
        """Redo the step that was undone last. Raises as `edit` does."""
        with self.lock:
            step = self.history.next_undone()
            return self._go(step, wanted=1, found=0, by=1)

    def plan(
        self, numbers: Sequence[int], find: str, replacement: str, *, regex: bool = False, ignore_case: bool = False
    ) -> Plan:
        """Preview a find-and-replace; `apply` writes it.

        Args:
            numbers: The rows; those with read-only captions are skipped.
            find: See `find_and_replace`.
            replacement: See `find_and_replace`.
            regex: See `find_and_replace`.
            ignore_case: See `find_and_replace`.

        Raises:
            ReplaceError: The pattern or the replacement is not valid.
        """
        self._rows.ensure(numbers)
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
            label=f"replace “{_short(find)}” with “{_short(replacement)}”",
            edits=tuple(
                Edit(number=number, version=states[number].version, captions=tuple(texts))
                for number, texts in captions.items()
            ),
            replacements=tuple(found),
            numbers=tuple(numbers),
        )
        with self.lock:
            self._plans[plan.id] = plan
            for old in list(self._plans)[:-_MAX_PLANS]:
                del self._plans[old]
        return plan

    def apply(self, plan_id: str) -> Outcome:
        """Apply a plan, with a backup; rows that changed since the preview are conflicts.

        Raises:
            KeyError: The plan has expired.
            EditError: See `edit`.
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
            if RowState.of(state) != states[found]:
                others.append(self._conflict(number, state))
                continue
            target, present = states[wanted], states[found]
            edits.append(
                Edit(
                    number=number,
                    version=state.version,
                    captions=target.captions if target.captions != present.captions else None,
                    rejected=target.rejected if target.rejected is not present.rejected else None,
                )
            )
        # Not to be cancelled: the history has no half steps.
        outcome = self._write(edits, Writing(f"{'undo' if by < 0 else 'redo'}: {step.label}", can_stop=False))
        self.history.move(by)
        outcome.label = step.label
        outcome.conflicts += others
        return outcome

    def _write(self, edits: Sequence[Edit], writing: Writing, *, backup: bool | None = None) -> Outcome:
        if self._captions is None:
            raise EditError(self._why_not or "captions are read-only")
        ids = self._rows.ids
        changes = {ids[edit.number]: Change(captions=edit.captions, rejected=edit.rejected) for edit in edits}
        self.writing = writing
        try:
            written = self._captions.write(
                changes,
                expect={ids[edit.number]: edit.version for edit in edits},
                backup=len(edits) >= _BACKUP_ROWS if backup is None else backup,
                work=writing.work,
            )
        finally:
            self.writing = None
        self.written |= {os.path.abspath(file): state for file, state in written.files.items()}  # noqa: PTH100
        outcome = Outcome(backup=written.backup, stopped=written.stopped)
        for edit in edits:
            id = ids[edit.number]
            if id in written.states:
                self._rows.set_state(edit.number, written.states[id])
                outcome.changed.append(edit.number)
            elif id in written.conflicts or not written.stopped:
                state = written.conflicts.get(id)
                self.found(edit.number, state)
                outcome.conflicts.append(self._conflict(edit.number, state))
        return outcome

    def found(self, number: int, state: CaptionState | None) -> None:
        """Update a row from disk and report an external change. A state of None means that the row was removed."""
        if state is None:
            if not self._rows.missing(number):
                self._rows.set_missing(number, True)
                self._rows.report(number, "gone")
        elif state.version != self._rows.state(number).version or state.problem != self._rows.state(number).problem:
            self._rows.set_state(number, state)
            if number not in self.expected:
                self._rows.report(number, "captions")

    def _conflict(self, number: int, state: CaptionState | None) -> dict[str, Any]:
        known = state if state is not None else self._rows.state(number)
        return {
            "n": number,
            "version": known.version,
            "captions": list(known.captions),
            "rejected": known.rejected,
            "missing": state is None or self._rows.missing(number),
        }


def _short(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:29]}…"
