"""`CaptionWriter`: collects the captions of a run and writes them to the dataset."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from calotype.captioning.ledger import CaptionLedger, LedgerEntry
from calotype.captioning.modes import merge_captions
from calotype.captioning.prompts import BackendIdentity, ImagePrompts
from calotype.captioning.report import CaptionFailure, CaptionReport, Example
from calotype.errors import EditError
from calotype.progress import count_failure

if TYPE_CHECKING:
    from calotype.captioning.job import CaptionJob

__all__ = ["CaptionWriter"]

_WRITE_INTERVAL: Final = 30.0
"""Seconds between writes of finished captions, so that others see them; the rest is written at the end."""
_MAX_WRITE_SHARE: Final = 20.0
"""Writing takes at most 1/20 of the run time."""


@dataclass(kw_only=True, slots=True)
class CaptionWriter:
    """A run in progress: `add` takes results from any thread, `write` puts captions into the dataset."""

    job: CaptionJob
    identity: BackendIdentity
    ledger: CaptionLedger
    per_image: int
    """Prompts per image."""
    tasks: list[ImagePrompts] = field(default_factory=list)
    kept: int = 0
    """Number of images that `replace` does not change because a person wrote their captions."""
    asked: int = 0
    reused: int = 0
    done: int = 0
    """Number of prompts with a result."""
    written: set[str] = field(default_factory=set)
    failures: list[CaptionFailure] = field(default_factory=list)
    backup: Path | None = None
    _backed_up: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """`add` and `write` run in different threads."""
    _entries: dict[str, dict[int, LedgerEntry]] = field(default_factory=dict)
    """Row id → index of the prompt → result."""
    _finished: list[str] = field(default_factory=list)
    _started: float = field(default_factory=time.perf_counter)
    _last_write: float = field(default_factory=time.perf_counter)
    _write_seconds: float = 0.0

    @property
    def total(self) -> int:
        """Number of prompts."""
        return len(self.tasks) * self.per_image

    def fail(self, id: str, kind: str, reason: str, preset: str, *, again: bool) -> None:
        """Record a failure; see `CaptionFailure`."""
        self.failures.append(CaptionFailure(id=id, kind=kind, reason=reason, preset=preset, again=again))

    def add(self, task: ImagePrompts, index: int, entry: LedgerEntry, new: bool) -> None:
        """Add the result of one prompt of an image.

        Args:
            task: The image.
            index: Index of the prompt in `task.prompts`.
            entry: The result.
            new: Whether it is of this run.
        """
        if new:
            self.ledger.learn(entry)
        with self._lock:
            self.done += 1
            self.asked += new
            if entry.text is not None:
                self.reused += not new
            else:
                earlier = not new and entry.at > 0
                if not earlier:
                    count_failure((entry.kind or "failed").replace("_", " "))
                self.fail(task.id, entry.kind or "failed", entry.error or "", entry.preset, again=earlier)
            entries = self._entries.setdefault(task.id, {})
            entries[index] = entry
            if len(entries) == len(task.prompts):
                self._finished.append(task.id)

    def examples(self) -> Iterator[Example]:
        """Yield the images of a dry run with their captions."""
        states = self.job.captions.read([task.id for task in self.tasks])
        for task in self.tasks:
            texts = tuple(dict.fromkeys(_texts(self._entries.get(task.id, {}))))
            if texts:
                yield Example(id=task.id, captions=texts, now=states[task.id].captions)

    def write_if_due(self) -> None:
        """Write finished captions if the last write is long enough ago."""
        since = time.perf_counter() - self._last_write
        if self._finished and since > max(_WRITE_INTERVAL, _MAX_WRITE_SHARE * self._write_seconds):
            self.write()

    def write(self, *, unfinished: bool = False) -> None:
        """Write captions to the dataset, except to rows that another program has changed since they were read.

        Args:
            unfinished: Include images for which some captions are still missing.

        Raises:
            EditError: The captions can't be written. The results stay in the ledger.
        """
        start = time.perf_counter()
        with self._lock:
            ids, self._finished = self._finished, []
            if unfinished:
                ids = list(self._entries)
        order = {task.id: index for index, task in enumerate(self.tasks)}
        ids.sort(key=order.__getitem__)
        while ids:  # rows that changed in between are compared again
            ids = self._write(ids)
        self._last_write = time.perf_counter()
        self._write_seconds = self._last_write - start

    def _write(self, ids: Sequence[str]) -> list[str]:
        """Write these rows, and return those that changed between reading and writing."""
        states = self.job.captions.read(ids)
        with self._lock:
            entries = {id: dict(self._entries[id]) for id in ids}
        changes: dict[str, tuple[str, ...]] = {}
        for id, state in states.items():
            texts = _texts(entries[id])
            hashes = {entry.picture for entry in entries[id].values()}
            generated = {entry.text or "" for image_hash in hashes for entry in self.ledger.captions(image_hash)}
            merged = merge_captions(self.job.mode, state.captions, texts, generated=generated, force=self.job.force)
            if texts and merged is not None and merged != state.captions and state.problem is None:
                changes[id] = merged
        return self._put(changes, {id: states[id].version for id in changes}) if changes else []

    def _put(self, changes: Mapping[str, Sequence[str]], versions: Mapping[str, str]) -> list[str]:
        """Write captions, and return the rows that changed since they were read."""
        try:
            written = self.job.captions.write(
                changes,
                expect={id: versions[id] for id in changes},
                backup=not self._backed_up,
                sidecars=self.job.sidecars,
            )
        except EditError as error:
            if isinstance(error.__cause__, OSError):
                raise
            ids = list(changes)  # the format can't hold one of the captions: bisect, so that the others are written
            if len(ids) == 1:
                self.fail(ids[0], "not_written", str(error), "", again=False)
                return []
            halves = ids[: len(ids) // 2], ids[len(ids) // 2 :]
            return [id for half in halves for id in self._put({one: changes[one] for one in half}, versions)]
        self._backed_up = True
        self.backup = self.backup or written.backup
        self.written.update(written.states)
        return [id for id, state in written.conflicts.items() if state is not None]

    def write_sidecars(self) -> None:
        """Write the captions of every captioned image beside it, those of earlier runs too."""
        states = self.job.captions.read()
        captioned = {id: state.captions for id, state in states.items() if state.captions and state.problem is None}
        if captioned:
            versions = {id: states[id].version for id in captioned}
            self.job.captions.write(captioned, expect=versions, backup=not self._backed_up, sidecars=True)

    def report(self, *, examples: Sequence[Example] = ()) -> CaptionReport:
        """Return the report of the run so far."""
        return CaptionReport(
            backend=self.identity.backend,
            model=self.identity.model,
            images=len(self.job.manifest),
            asked=self.asked,
            reused=self.reused,
            written=len(self.written),
            kept=self.kept,
            failures=tuple(self.failures),
            seconds=time.perf_counter() - self._started,
            backup=self.backup,
            examples=tuple(examples),
        )


def _texts(entries: Mapping[int, LedgerEntry]) -> list[str]:
    return [text for index in sorted(entries) if (text := entries[index].text) is not None]
