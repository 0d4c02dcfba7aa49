"""`Producer`: makes the batches of a plan, in order, with any number of threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Literal, NamedTuple

import torch

from calotype.data.sample_source import BatchSource, PreparedSample, SampleSource
from calotype.errors import ImageError, LoaderError
from calotype.ledger import LedgerEntry
from calotype.loader.batch_builder import BatchBuilder, Memory, Pending
from calotype.loader.plan import Cursor, EpochPlan, Plan
from calotype.transforms import CaptionDraw
from calotype.types import Batch, SampleKey

__all__ = ["Made", "OnError", "Producer", "Share"]

OnError = Literal["replace", "raise"]

_AT_ONCE = 64
"""Minimum number of samples that are described in one go."""
_MOST_FIT = 1 << 20
"""Maximum number of texts cached as not truncated; some 60 MB. Others are measured each time."""
_NOWHERE = (-1, -1)
"""Position of a step that could not be started."""


class Made(NamedTuple):
    """A finished batch, not yet on the device."""

    at: tuple[int, int]
    """(epoch, step)"""
    memory: Memory
    tensors: dict[str, torch.Tensor]
    rest: Batch
    notes: list[LedgerEntry]


class _Step(NamedTuple):
    """A batch of the plan."""

    plan: EpochPlan
    epoch: int
    number: int
    keys: list[SampleKey]
    source: BatchSource
    """What prepares its samples."""
    read: tuple[BatchBuilder, list[list[Pending]]] | None
    """All that is to be done, sample by sample, where that is only to read."""


Share = Callable[[], None]
"""One thread's part of a step. It raises nothing: what goes wrong comes out where the step is taken."""


class _Job:
    """A step that was begun."""

    def __init__(
        self,
        at: tuple[int, int],
        memory: Memory,
        builder: BatchBuilder,
        shares: int,
        error: BaseException | None = None,
    ) -> None:
        self.at, self.memory, self.builder = at, memory, builder
        self.notes: list[list[LedgerEntry]] = [[] for _ in range(shares)]
        self.error = error
        self.left = shares
        self.running = 0
        self.given_up = False


class Producer:
    """Prepares the batches of a plan, from any position on, across epochs. The threads are the caller's.

    Args:
        dataset: The source of samples.
        plan: The order.
        threads: Number of threads that will call the shares.
        on_error: `replace` puts another image of the same bucket where one can't be read, and notes it;
            `raise` ends with the error.
        finish: Whether samples are finished here, one by one, or later on the device, batch by batch. The bits are
            the same.
        on_ready: Called, from the thread that did the last share of it, when a step has been made.
    """

    def __init__(
        self,
        dataset: SampleSource,
        plan: Plan,
        *,
        threads: int,
        on_error: OnError,
        finish: bool,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        self._dataset, self._plan, self._on_error = dataset, plan, on_error
        self._finish, self._on_ready = finish, on_ready
        self._threads = threads
        self._changed = threading.Condition()
        """Of what a job counts."""
        self._jobs: deque[_Job] = deque()
        self._described: deque[_Step] = deque()
        self._cursor = Cursor()
        self._epoch: tuple[Cursor, EpochPlan] | None = None
        self._cut: set[tuple[int, int]] = set()
        """(row, caption) of those that were noted."""
        self._fit: set[int] = set()
        """Hashes of texts that are not cut."""

    def __len__(self) -> int:
        """Batches begun and not yet taken."""
        return len(self._jobs)

    def seek(self, cursor: Cursor) -> list[Memory]:
        """Makes `cursor` the next step to begin; what was begun is given up, and its memory returned."""
        with self._changed:
            jobs = list(self._jobs)
            for job in jobs:
                job.given_up = True
            # No thread may write to their memory after this.
            self._changed.wait_for(lambda: not any(job.running for job in jobs))
        self._jobs.clear()
        self._described.clear()
        self._cursor = cursor
        return [job.memory for job in jobs]

    def submit(self, memory: Memory) -> list[Share]:
        """Begins the next step: it is made when all of the shares have been called, each in any thread.

        Where it can't even be begun, there are none, and `take` says why.
        """
        try:
            if not self._described:
                self._describe()
            step = self._described.popleft()
            if step.read is not None:
                step.read[0].attach(memory)
        except Exception as error:
            self._jobs.append(_Job(_NOWHERE, memory, BatchBuilder(0), 0, error))
            if self._on_ready is not None:
                self._on_ready()
            return []
        size = -(-len(step.keys) // self._threads) if step.source.only_reads else 1
        starts = range(0, len(step.keys), size)
        works: list[Callable[[], list[LedgerEntry]]]
        if step.read is not None:
            builder, tensors = step.read
            works = [partial(_write, builder, tensors[start : start + size]) for start in starts]
        else:
            builder = BatchBuilder(len(step.keys), memory)
            places = list(enumerate(step.keys))
            works = [partial(self._make, builder, step, places[start : start + size]) for start in starts]
        job = _Job((step.epoch, step.number), memory, builder, len(works))
        self._jobs.append(job)
        return [partial(self._do, job, number, work) for number, work in enumerate(works)]

    def _do(self, job: _Job, number: int, work: Callable[[], list[LedgerEntry]]) -> None:
        with self._changed:
            if job.given_up:
                return
            job.running += 1
        try:
            job.notes[number] = work()
        except BaseException as error:
            job.error = error
        with self._changed:
            job.running -= 1
            job.left -= 1
            self._changed.notify_all()
        if not job.left and self._on_ready is not None:
            self._on_ready()

    def _describe(self) -> None:
        """Says of the next few steps what is to be done: code that runs several times over takes less time for each."""
        samples = 0
        while samples < _AT_ONCE:
            cursor = self._cursor
            while not len(plan := self._plan_of(cursor)):  # weights below 1 can leave an epoch empty
                cursor = Cursor(epoch=cursor.epoch + 1)
            keys = plan[cursor.step]
            try:
                source = self._dataset.for_batch(keys)
            except Exception:
                if self._described:
                    return  # those before come first; it comes again when its turn has come
                raise
            read = None if self._finish else _only_read(source, keys)
            self._described.append(_Step(plan, cursor.epoch, cursor.step, keys, source, read))
            samples += len(keys)
            if cursor.step + 1 < len(plan):
                self._cursor = Cursor(epoch=cursor.epoch, step=cursor.step + 1, history=cursor.history)
            else:
                self._cursor = Cursor(epoch=cursor.epoch + 1)

    def ready(self) -> bool:
        """Whether `take` would return at once."""
        return bool(self._jobs) and not self._jobs[0].left

    def take(self) -> Made:
        """Waits for the oldest step begun.

        Raises:
            Exception: Whatever the dataset raised that is not one unreadable image.
        """
        job = self._jobs[0]
        with self._changed:
            self._changed.wait_for(lambda: not job.left)
        if job.error is not None:
            raise job.error  # the step stays, for `seek` to give its memory back
        tensors, rest = job.builder.finish()
        self._jobs.popleft()
        return Made(job.at, job.memory, tensors, rest, [note for notes in job.notes for note in notes])

    def _plan_of(self, cursor: Cursor) -> EpochPlan:
        start = Cursor(epoch=cursor.epoch, history=cursor.history)
        if self._epoch is None or self._epoch[0] != start:
            self._epoch = (start, self._plan.epoch(start.epoch, start.history))
        return self._epoch[1]

    def _make(self, builder: BatchBuilder, step: _Step, places: list[tuple[int, SampleKey]]) -> list[LedgerEntry]:
        return [note for place, key in places for note in self._make_one(builder, step, place, key)]

    def _make_one(self, builder: BatchBuilder, step: _Step, place: int, wanted: SampleKey) -> list[LedgerEntry]:
        notes: list[LedgerEntry] = []
        for key in chain([wanted], step.plan.stand_ins(step.number, place)):
            try:
                sample = step.source.prepare(key)
                break
            except ImageError as error:
                if self._on_error == "raise":
                    raise
                notes.append(LedgerEntry(kind="unreadable", id=self._name(key.index), reason=str(error)))
        else:
            tried = "; ".join(note.reason for note in notes)
            raise LoaderError(f"{len(notes)} images in a row can't be read: {tried}")
        if not isinstance(sample, Mapping):
            raise LoaderError(
                f"{type(self._dataset).__name__}.prepare: found a {type(sample).__name__}, expected a mapping of names "
                "to tensors and other values"
            )
        if key is not wanted:
            notes.append(
                LedgerEntry(
                    kind="replaced",
                    id=self._name(wanted.index),
                    reason=f"{self._name(key.index)} was shown in its place in epoch {key.epoch}, step {step.number}",
                )
            )
        if isinstance(sample, PreparedSample) and sample.caption is not None:
            notes += self._cut_captions(key, sample.caption)
        builder.put(place, self._dataset.finish(sample) if self._finish else sample)
        return notes

    def _cut_captions(self, key: SampleKey, draw: CaptionDraw) -> list[LedgerEntry]:
        """A note for a caption that a tokenizer cuts, the first time that one of its draws is cut."""
        caption, text = (key.index, draw.choice), hash(draw.text)
        if caption in self._cut or text in self._fit:
            return []
        cuts = self._dataset.truncated(draw.text)
        if not cuts and len(self._fit) < _MOST_FIT:  # the next draw may be longer: this one was dropped, or lost parts
            self._fit.add(text)
        if cuts:
            self._cut.add(caption)
        return [
            LedgerEntry(
                kind="caption_cut",
                id=self._name(key.index),
                reason=f"{name}: {cut.tokens} tokens where the model reads {cut.limit}; lost: {cut.lost!r}",
            )
            for name, cut in cuts.items()
        ]

    def _name(self, index: int) -> str:
        return self._dataset.ids(index, index + 1)[0]


def _only_read(source: BatchSource, keys: list[SampleKey]) -> tuple[BatchBuilder, list[list[Pending]]] | None:
    """A batch of whose samples all but the reading is done; None where there is more to do."""
    if not source.only_reads:
        return None
    builder = BatchBuilder(len(keys))
    try:
        return builder, [builder.add(place, source.prepare(key)) for place, key in enumerate(keys)]
    except Exception:  # raised again where it is handled
        return None


def _write(builder: BatchBuilder, samples: list[list[Pending]]) -> list[LedgerEntry]:
    for tensors in samples:
        builder.write(tensors)
    return []
