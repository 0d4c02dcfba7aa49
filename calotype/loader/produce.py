"""`Producer`: prepares the batches of a plan, in order, with any number of threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
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
"""Minimum number of samples that `_describe` plans in one call."""
_MOST_FIT = 1 << 20
"""Maximum number of texts cached as not truncated, about 60 MB. Others are tokenised each time."""


class Made(NamedTuple):
    """A finished batch, not yet on the device."""

    at: tuple[int, int]
    """(epoch, step)"""
    memory: Memory
    tensors: dict[str, torch.Tensor]
    rest: Batch
    keys: tuple[str, ...]
    """All keys, in the order that `collate` gives them."""
    notes: list[LedgerEntry]


class _Cut(NamedTuple):
    """A caption that tokenizers truncate."""

    caption: tuple[int, int]
    """(row, index of the caption)"""
    entries: list[LedgerEntry]


_Note = LedgerEntry | _Cut


class _Step(NamedTuple):
    """A step that is planned, but not yet submitted."""

    plan: EpochPlan
    cursor: Cursor
    keys: list[SampleKey]
    source: BatchSource
    """Prepares its samples."""
    read: tuple[BatchBuilder, list[list[Pending]]] | None
    """The builder, and the tensors of each sample to read, if reading is all that is left to do; else None."""


Share = Callable[[], None]
"""One thread's part of a step. It does not raise: `take` raises its error."""


class _Job:
    """A submitted step.

    Args:
        cursor: Its position.
        memory: Memory of its tensors.
        builder: Collects its samples.
        shares: Number of shares it consists of.
        error: Why it could not be started.
    """

    def __init__(
        self,
        cursor: Cursor,
        memory: Memory,
        builder: BatchBuilder,
        shares: int,
        error: BaseException | None = None,
    ) -> None:
        self.cursor, self.memory, self.builder = cursor, memory, builder
        self.notes: list[list[_Note]] = [[] for _ in range(shares)]
        self.error = error
        self.left = shares
        """Number of shares not completed."""
        self.running = 0
        """Number of shares in progress."""
        self.given_up = False
        """Whether `seek` discarded it."""


class Producer:
    """Prepares the batches of a plan, across epochs, from any position. The caller runs the threads.

    Args:
        dataset: Source of the samples.
        plan: Order of the samples.
        threads: Number of threads that call the shares.
        on_error: What to do if an image can't be read: `replace` uses another image of the same bucket and adds a
            ledger entry; `raise` raises the error.
        finish: Whether to call the dataset's `finish` here, on each sample, or leave it to the trainer, on whole
            batches on the device. The results are the same bit for bit.
        on_ready: Called when a step is complete, in the thread that completed it.
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
        """Guards the counters of all jobs; notified when one changes."""
        self._jobs: deque[_Job] = deque()
        self._described: deque[_Step] = deque()
        self._samples_described = 0
        self._cursor = Cursor()
        self._epoch: tuple[Cursor, EpochPlan] | None = None
        self._cut: set[tuple[int, int]] = set()
        """The truncated captions (see `_Cut`) that have a ledger entry in a batch taken."""
        self._fit: set[int] = set()
        """Hashes of texts that no tokenizer truncates."""

    def __len__(self) -> int:
        """Return the number of batches submitted and not yet taken."""
        return len(self._jobs)

    @property
    def upcoming(self) -> Cursor:
        """Position of the next step to submit."""
        return self._described[0].cursor if self._described else self._cursor

    @property
    def oldest(self) -> Cursor:
        """Position of the next step to take."""
        return self._jobs[0].cursor if self._jobs else self.upcoming

    def seek(self, cursor: Cursor) -> list[Memory]:
        """Move to `cursor`: discard the steps already submitted, and return their memory."""
        jobs = list(self._jobs)
        self.give_up(timeout=None)  # no thread may write to the returned memory
        self._jobs.clear()
        self._described.clear()
        self._samples_described = 0
        self._cursor = cursor
        return [job.memory for job in jobs]

    def give_up(self, *, timeout: float | None) -> None:
        """Call no further shares of the steps submitted, and wait for those in progress.

        Args:
            timeout: Maximum seconds to wait.
        """
        with self._changed:
            for job in self._jobs:
                job.given_up = True
            self._changed.wait_for(lambda: not any(job.running for job in self._jobs), timeout)

    def submit(self, memory: Memory) -> list[Share]:
        """Start the next step.

        Args:
            memory: Memory for its tensors.

        Returns:
            The parts of the step. It is complete when all have been called, in any threads. Empty if the step can't be
            started; `take` then raises the error.
        """
        # Take the next planned step; plan more if there is none.
        try:
            self._look_ahead()
            step = self._described.popleft()
            self._samples_described -= len(step.keys)
            if step.read is not None:
                step.read[0].attach(memory)
        except Exception as error:
            self._jobs.append(_Job(self.upcoming, memory, BatchBuilder(0), 0, error))
            if self._on_ready is not None:
                self._on_ready()
            return []
        # Split it: into a share per thread if it only reads (short calls), else into a share per sample.
        size = -(-len(step.keys) // self._threads) if step.source.only_reads else 1
        starts = range(0, len(step.keys), size)
        works: list[Callable[[], list[_Note]]]
        if step.read is not None:
            builder, tensors = step.read
            works = [partial(_write, builder, tensors[start : start + size]) for start in starts]
        else:
            builder = BatchBuilder(len(step.keys), memory)
            samples = list(enumerate(step.keys))
            works = [partial(self._make, builder, step, samples[start : start + size]) for start in starts]
        job = _Job(step.cursor, memory, builder, len(works))
        self._jobs.append(job)
        return [partial(self._do, job, number, work) for number, work in enumerate(works)]

    def _do(self, job: _Job, number: int, work: Callable[[], list[_Note]]) -> None:
        """Run one share of a job: its call by a thread."""
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

    def _look_ahead(self) -> None:
        """Plan the next step at least; and as many steps of its epoch as the dataset looks ahead."""
        if not self._described:
            self._describe()
        before = 0
        while (
            before < self._samples_described < self._dataset.lookahead
            and self._described[-1].cursor.epoch == self._cursor.epoch
        ):
            before = self._samples_described
            self._describe()

    def _describe(self) -> None:
        """Plan the next few steps together: the processor's caches then hold the code after the first step.

        A dataset that begins to fetch ahead gets one step at a time: not those of later epochs.
        """
        samples = 0
        while samples < (1 if self._dataset.lookahead else _AT_ONCE):
            cursor = self._cursor
            while not len(plan := self._plan_of(cursor)):  # weights below 1 can leave an epoch empty
                cursor = Cursor(epoch=cursor.epoch + 1)
            keys = plan[cursor.step]
            try:
                source = self._dataset.for_batch(keys)
            except Exception:
                if self._described:
                    return  # steps before it are still to be submitted; this one fails again in its turn
                raise
            read = None if self._finish else _only_read(source, keys)
            self._described.append(_Step(plan, cursor, keys, source, read))
            samples += len(keys)
            self._samples_described += len(keys)
            if cursor.step + 1 < len(plan):
                self._cursor = Cursor(epoch=cursor.epoch, step=cursor.step + 1, history=cursor.history)
            else:
                self._cursor = Cursor(epoch=cursor.epoch + 1)

    def ready(self) -> bool:
        """Return whether `take` would not wait."""
        return bool(self._jobs) and not self._jobs[0].left

    def take(self) -> Made:
        """Return the oldest step submitted; wait until it is complete.

        Raises:
            Exception: Any error of the dataset, except that of an unreadable image under `on_error="replace"`.
        """
        job = self._jobs[0]
        with self._changed:
            self._changed.wait_for(lambda: not job.left)
        if job.error is not None:
            raise job.error  # the job stays in the queue: `seek` returns its memory
        tensors, rest, keys = job.builder.finish()
        self._jobs.popleft()
        return Made(
            (job.cursor.epoch, job.cursor.step),
            job.memory,
            tensors,
            rest,
            keys,
            self._entries(note for notes in job.notes for note in notes),
        )

    def _entries(self, notes: Iterable[LedgerEntry | _Cut]) -> list[LedgerEntry]:
        """Return the ledger entries of a batch; of a truncated caption, only with the first batch that has it.

        Batches are taken in their order, but prepared in any: a thread can't know which one is first.
        """
        entries: list[LedgerEntry] = []
        for note in notes:
            if isinstance(note, LedgerEntry):
                entries.append(note)
            elif note.caption not in self._cut:
                self._cut.add(note.caption)
                entries += note.entries
        return entries

    def _plan_of(self, cursor: Cursor) -> EpochPlan:
        """Return the plan of the cursor's epoch; the last one is cached."""
        start = Cursor(epoch=cursor.epoch, history=cursor.history)
        if self._epoch is None or self._epoch[0] != start:
            self._epoch = (start, self._plan.epoch(start.epoch, start.history))
        return self._epoch[1]

    def _make(self, builder: BatchBuilder, step: _Step, samples: list[tuple[int, SampleKey]]) -> list[_Note]:
        return [note for index, key in samples for note in self._make_one(builder, step, index, key)]

    def _make_one(self, builder: BatchBuilder, step: _Step, index: int, wanted: SampleKey) -> list[_Note]:
        """Prepare one sample, or a replacement, and write it into the batch; return notes for the ledger.

        Args:
            builder: Builder of the batch.
            step: The batch's step.
            index: Index of the sample in the batch.
            wanted: Key of the sample.

        Raises:
            ImageError: The image can't be read, under `on_error="raise"`.
            LoaderError: None of the replacements can be read, or `prepare` returned no mapping.
        """
        unread: list[LedgerEntry] = []
        # Prepare the sample, or the first of its replacements that can be read.
        for key in chain([wanted], step.plan.stand_ins(step.cursor.step, index)):
            try:
                sample = step.source.prepare(key)
                break
            except ImageError as error:
                if self._on_error == "raise":
                    raise
                unread.append(LedgerEntry(kind="unreadable", id=self._name(key.index), reason=str(error)))
        else:
            tried = "; ".join(entry.reason for entry in unread)
            raise LoaderError(f"{len(unread)} images in a row can't be read: {tried}")
        if not isinstance(sample, Mapping):
            raise LoaderError(
                f"{type(self._dataset).__name__}.prepare: found a {type(sample).__name__}, expected a mapping of names "
                "to tensors and other values"
            )
        notes: list[_Note] = [*unread]
        if key is not wanted:
            notes.append(
                LedgerEntry(
                    kind="replaced",
                    id=self._name(wanted.index),
                    reason=f"{self._name(key.index)} was shown in its place in epoch {key.epoch}, "
                    f"step {step.cursor.step}",
                )
            )
        if isinstance(sample, PreparedSample) and sample.caption is not None:
            notes += self._cut_caption(key, sample.caption)
        builder.put(index, self._dataset.finish(sample) if self._finish else sample)
        return notes

    def _cut_caption(self, key: SampleKey, draw: CaptionDraw) -> list[_Cut]:
        """Return a note on a caption that tokenizers truncate, unless it has its entries already."""
        caption, text = (key.index, draw.choice), hash(draw.text)
        if caption in self._cut or text in self._fit:
            return []
        cuts = self._dataset.truncated(draw.text)
        if not cuts:
            if len(self._fit) < _MOST_FIT:  # cache the text, not the caption: dropout may have shortened it
                self._fit.add(text)
            return []
        entries = [
            LedgerEntry(
                kind="caption_cut",
                id=self._name(key.index),
                reason=f"{name}: {cut.tokens} tokens where the model reads {cut.limit}; lost: {cut.lost!r}",
            )
            for name, cut in cuts.items()
        ]
        return [_Cut(caption, entries)]

    def _name(self, index: int) -> str:
        return self._dataset.ids(index, index + 1)[0]


def _only_read(source: BatchSource, keys: list[SampleKey]) -> tuple[BatchBuilder, list[list[Pending]]] | None:
    """Prepare the samples of a batch, except for reading their tensors. None if the source does more than read."""
    if not source.only_reads:
        return None
    builder = BatchBuilder(len(keys))
    try:
        return builder, [builder.add(index, source.prepare(key)) for index, key in enumerate(keys)]
    except Exception:  # `_make_one` prepares the samples again, and handles the error
        return None


def _write(builder: BatchBuilder, samples: list[list[Pending]]) -> list[_Note]:
    for tensors in samples:
        builder.write(tensors)
    return []
