"""N threads that turn the endless stream of steps into finished batches, in order."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Protocol

import torch

from calotype.errors import ImageError, LoaderError
from calotype.ledger import LedgerEntry
from calotype.loader.build import BatchBuilder, Memory
from calotype.loader.plan import Cursor, EpochPlan, Plan
from calotype.types import Batch, SampleKey

__all__ = ["Made", "OnError", "Preparable", "Producer"]

OnError = Literal["replace", "raise"]

logger = logging.getLogger("calotype")


class Preparable(Protocol):
    """What the loader needs of a dataset.

    One that `tokenises` also has `caption` and `truncated`, which tell of texts that are cut. One with `for_batch` is
    asked, for the keys of each batch, what prepares that batch. Where samples are `alike`, none takes much longer than
    another, and each thread gets its share of a batch at once. One that `finishes_in_trainer` has its batches finished
    there, also where there is no other device.
    """

    def __len__(self) -> int: ...

    def prepare(self, key: SampleKey, /) -> Mapping[str, Any]:
        """One sample as it travels to the device."""
        ...

    def finish(self, batch: Mapping[str, Any], /) -> Batch:
        """What is left to do on the device, for a sample or a whole batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A finished batch, not yet on the device."""

    cursor: Cursor
    memory: Memory
    tensors: dict[str, torch.Tensor]
    rest: Batch
    notes: list[LedgerEntry]


@dataclass(slots=True, kw_only=True)
class _Job:
    cursor: Cursor
    memory: Memory
    builder: BatchBuilder
    shares: list[Future[list[LedgerEntry]]]

    def done(self) -> bool:
        return all(share.done() for share in self.shares)


class Producer:
    """Prepares the batches of a plan, from any position on, across epochs.

    Args:
        dataset: Gives the samples.
        plan: Says which.
        threads: How many work at once.
        on_error: `replace` puts another picture of the same bucket where one can't be read, and notes it;
            `raise` ends with the error.
        finish: Whether samples are finished here, one by one, or later on the device, batch by batch. The bits are
            the same.
        on_ready: Called, from any thread, when a step has been made.
    """

    def __init__(
        self,
        dataset: Preparable,
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
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="calotype")
        self._jobs: deque[_Job] = deque()
        self._cursor = Cursor()
        self._epoch: tuple[Cursor, EpochPlan] | None = None
        self._measured: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        """Batches begun and not yet taken."""
        return len(self._jobs)

    def seek(self, cursor: Cursor) -> list[Memory]:
        """Makes `cursor` the next step to begin; what was begun is given up, and its memory returned."""
        for job in self._jobs:
            for share in job.shares:
                share.cancel()
        for job in self._jobs:
            for share in job.shares:
                if not share.cancelled():
                    share.exception()  # waits: nobody may write to its memory any more
        memories = [job.memory for job in self._jobs]
        self._jobs.clear()
        self._cursor = cursor
        return memories

    def submit(self, memory: Memory) -> None:
        """Begins the next step."""
        cursor = self._cursor
        while not len(plan := self._plan_of(cursor)):  # weights below 1 can leave an epoch empty
            cursor = Cursor(epoch=cursor.epoch + 1)
        builder = BatchBuilder(len(keys := plan[cursor.step]), memory)
        for_batch = getattr(self._dataset, "for_batch", None)
        dataset: Preparable = self._dataset if for_batch is None else for_batch(keys)
        places = list(enumerate(keys))
        share = -(-len(places) // self._threads) if getattr(dataset, "alike", False) else 1
        shares = [
            self._pool.submit(self._make, dataset, builder, plan, cursor.step, places[start : start + share])
            for start in range(0, len(places), share)
        ]
        job = _Job(cursor=cursor, memory=memory, builder=builder, shares=shares)
        self._jobs.append(job)
        if (on_ready := self._on_ready) is not None:
            for one in shares:
                one.add_done_callback(lambda _: on_ready() if job.done() else None)
        if cursor.step + 1 < len(plan):
            self._cursor = Cursor(epoch=cursor.epoch, step=cursor.step + 1, history=cursor.history)
        else:
            self._cursor = Cursor(epoch=cursor.epoch + 1)

    def ready(self) -> bool:
        """Whether `take` would return at once."""
        return bool(self._jobs) and self._jobs[0].done()

    def take(self) -> Made:
        """Waits for the oldest step begun.

        Raises:
            Exception: Whatever the dataset raised that is not one unreadable picture.
        """
        job = self._jobs[0]
        notes = [note for share in job.shares for note in share.result()]
        tensors, rest = job.builder.finish()
        self._jobs.popleft()  # not before: a step that fails stays, for `seek` to give its memory back
        return Made(cursor=job.cursor, memory=job.memory, tensors=tensors, rest=rest, notes=notes)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _plan_of(self, cursor: Cursor) -> EpochPlan:
        start = Cursor(epoch=cursor.epoch, history=cursor.history)
        if self._epoch is None or self._epoch[0] != start:
            self._epoch = (start, self._plan.epoch(start.epoch, start.history))
        return self._epoch[1]

    def _make(
        self,
        dataset: Preparable,
        builder: BatchBuilder,
        plan: EpochPlan,
        step: int,
        places: list[tuple[int, SampleKey]],
    ) -> list[LedgerEntry]:
        return [note for place, key in places for note in self._make_one(dataset, builder, plan, step, place, key)]

    def _make_one(
        self, dataset: Preparable, builder: BatchBuilder, plan: EpochPlan, step: int, place: int, wanted: SampleKey
    ) -> list[LedgerEntry]:
        notes: list[LedgerEntry] = []
        for key in chain([wanted], plan.stand_ins(step, place)):
            try:
                sample = dataset.prepare(key)
                break
            except ImageError as error:
                if self._on_error == "raise":
                    raise
                notes.append(LedgerEntry(kind="unreadable", id=self._name(key.index), reason=str(error)))
        else:
            tried = "\n  ".join(note.reason for note in notes)
            raise LoaderError(f"{len(notes)} pictures in a row can't be read:\n  {tried}")
        if key is not wanted:
            notes.append(
                LedgerEntry(
                    kind="replaced",
                    id=self._name(wanted.index),
                    reason=f"{self._name(key.index)} was shown in its place in epoch {key.epoch}, step {step}",
                )
            )
        notes += self._cut_captions(key)
        builder.put(place, dataset.finish(sample) if self._finish else sample)
        return notes

    def _cut_captions(self, key: SampleKey) -> list[LedgerEntry]:
        """A note for a caption that a tokenizer cuts, the first time it comes."""
        if not getattr(self._dataset, "tokenises", False):
            return []
        draw = self._dataset.caption(key)  # type: ignore[attr-defined]
        if (mark := (key.index, draw.choice)) in self._measured:
            return []
        self._measured.add(mark)
        return [
            LedgerEntry(
                kind="caption_cut",
                id=self._name(key.index),
                reason=f"{name}: {cut.tokens} tokens where the model reads {cut.limit}; lost: {cut.lost!r}",
            )
            for name, cut in self._dataset.truncated(draw.text).items()  # type: ignore[attr-defined]
        ]

    def _name(self, index: int) -> str:
        manifest = getattr(self._dataset, "manifest", None)
        return str(manifest[index].id) if manifest is not None else str(index)
