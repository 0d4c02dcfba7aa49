"""`CaptionPipeline`: threads prepare images ahead, and other threads keep the backend busy."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import xxhash
from PIL import Image

from calotype.captioning.backend import CaptionAnswer, CaptionBackend, CaptionRequest
from calotype.captioning.ledger import CaptionLedger, LedgerEntry
from calotype.captioning.prepare_image import prepare_image
from calotype.captioning.prompts import BackendIdentity, ImagePrompts, RenderedPrompt, tidy
from calotype.errors import CalotypeError, CaptionError, ImageError
from calotype.images import ImageReader

__all__ = ["CaptionPipeline", "OnResult"]

OnResult = Callable[[ImagePrompts, int, LedgerEntry, bool], None]
"""Called with (image, index of the prompt, result, whether it is of this run), by one thread at a time."""

_AHEAD: Final = 2
"""Images to prepare ahead, as a multiple of those that the backend processes at once."""
_POLL_SECONDS: Final = 0.2
"""Interval at which the caller's thread shows the progress."""
_GRACE_SECONDS: Final = 5.0
"""Time for the other calls to finish after one raised; their results are used."""


@dataclass(slots=True, kw_only=True)
class _PreparedPrompt:
    """A prompt with its decoded image."""

    task: ImagePrompts
    index: int
    """Index of the prompt in the task."""
    image_hash: str
    image: Image.Image
    last: bool
    """Whether it is the last prompt that holds this image."""

    @property
    def prompt(self) -> RenderedPrompt:
        return self.task.prompts[self.index]

    def request(self) -> CaptionRequest:
        prompt = self.prompt
        return CaptionRequest(
            image=self.image, prompt=prompt.text, system=prompt.system, task=prompt.task, seed=prompt.seed
        )


class CaptionPipeline:
    """Runs prompts: results are those in the ledger, else from the backend.

    Args:
        backend: Generates the captions.
        reader: Reads the images.
        ledger: Searched first; every new result is appended before it is reported.
        pixels: Larger images are downscaled to this number of pixels.
        retry_failed: Retry prompts that the ledger lists as failed.
        keep: Append results to the ledger.
    """

    def __init__(
        self,
        backend: CaptionBackend,
        reader: ImageReader,
        ledger: CaptionLedger,
        *,
        pixels: int,
        retry_failed: bool = False,
        keep: bool = True,
    ) -> None:
        self._backend, self._reader, self._ledger = backend, reader, ledger
        self._identity = BackendIdentity.of(backend, pixels)
        self._pixels, self._retry_failed, self._keep = pixels, retry_failed, keep
        self._threads = min(8, (os.cpu_count() or 1) + 1)

    def run(
        self, tasks: Sequence[ImagePrompts], on_result: OnResult, *, wait: Callable[[], None] = lambda: None
    ) -> None:
        """Run all prompts, in no defined order.

        A result is in the ledger as soon as the backend returns it. An exception in the caller's thread (Ctrl-C, or
        one that `wait` raises) ends the run at once, without waiting for calls in progress.

        Args:
            tasks: The images with their prompts.
            on_result: Called for each result.
            wait: Called in the caller's thread several times a second.

        Raises:
            CaptionError: See `CaptionBackend.caption`.
            EditError: The ledger can't be written.
        """
        threads = _Threads(self, tasks, on_result)
        try:
            threads.run(wait)
        finally:
            threads.close()

    def fetched_ahead(self, tasks: Sequence[ImagePrompts]) -> Iterator[tuple[ImagePrompts, ImageReader]]:
        """Yield each task with the reader of its image; those by URL are fetched ahead, over all connections."""
        most = self._reader.fetcher.connections
        begun: deque[tuple[Sequence[ImagePrompts], ImageReader]] = deque()
        for start in range(0, len(tasks), most):
            some = tasks[start : start + most]
            begun.append((some, self._reader.ahead(task.ref for task in some)))
            if len(begun) > 1:
                first, reader = begun.popleft()
                yield from ((task, reader) for task in first)
        for first, reader in begun:
            yield from ((task, reader) for task in first)

    def prepare(
        self, task: ImagePrompts, reader: ImageReader
    ) -> tuple[list[tuple[int, LedgerEntry]], list[_PreparedPrompt]]:
        """Read one image, and return the results from the ledger and the prompts that are left to run."""
        try:
            data = reader.read_bytes(task.ref)
        except ImageError as error:
            return self._unreadable(task, error), []
        image_hash = xxhash.xxh3_128_hexdigest(data)
        known: list[tuple[int, LedgerEntry]] = []
        missing: list[int] = []
        for index, prompt in enumerate(task.prompts):
            entry = self._known(task.id, prompt, image_hash)
            if entry is None:
                missing.append(index)
            else:
                known.append((index, entry))
        if not missing:
            return known, []
        try:
            image = prepare_image(data, pixels=self._pixels, reader=self._reader)
        except ImageError as error:
            failed = dict(self._unreadable(task, error))
            return [*known, *((index, failed[index]) for index in missing)], []
        return known, [
            _PreparedPrompt(task=task, index=index, image_hash=image_hash, image=image, last=index == missing[-1])
            for index in missing
        ]

    def _unreadable(self, task: ImagePrompts, error: ImageError) -> list[tuple[int, LedgerEntry]]:
        """Return the results for an image that can't be read. They are not stored: reading it again is cheap."""
        return [
            (index, prompt.entry(self._identity, task.id, "", error=error.reason, kind=error.kind))
            for index, prompt in enumerate(task.prompts)
        ]

    def _known(self, id: str, prompt: RenderedPrompt, image_hash: str) -> LedgerEntry | None:
        if prompt.known is not None:
            return prompt.entry(self._identity, id, image_hash, text=prompt.known)
        if prompt.error is not None:
            return prompt.entry(self._identity, id, image_hash, error=prompt.error, kind="no_value")
        entry = self._ledger.get(prompt.key(image_hash))
        if entry is None or (entry.text is None and self._retry_failed):
            return None
        return replace(entry, id=id)

    def call(self, batch: Sequence[_PreparedPrompt]) -> list[LedgerEntry]:
        """Call the backend once, and append its results to the ledger."""
        requests = [one.request() for one in batch]
        try:
            answers = self._backend.caption(requests)
        except CalotypeError:
            raise
        except Exception as error:  # violates the protocol: must not fail the other images
            reason = f"the backend {self._backend.name!r} failed on it: {type(error).__name__}: {error}"
            answers = [CaptionAnswer(error=reason, kind="failed") for _ in requests]
        if len(answers) != len(batch):
            raise CaptionError(
                f"caption backend {self._backend.name!r}: returned {len(answers)} answers to {len(batch)} requests; "
                "expected one for each, in their order"
            )
        entries = [self._entry(one, answer) for one, answer in zip(batch, answers, strict=True)]
        if self._keep:
            for entry in entries:
                self._ledger.append(entry)
        return entries

    def _entry(self, one: _PreparedPrompt, answer: CaptionAnswer) -> LedgerEntry:
        return one.prompt.entry(
            self._identity,
            one.task.id,
            one.image_hash,
            text=None if answer.text is None else tidy(answer.text),
            error=answer.error,
            kind=answer.kind,
            finish_reason=answer.finish_reason,
            at=time.time(),
        )

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(threads that prepare, concurrent calls, requests per call)."""
        return self._threads, self._backend.concurrency, self._backend.batch_size


class _Threads:
    """The threads of one run. Those that prepare images feed a queue, from which the others form batches."""

    def __init__(self, pipeline: CaptionPipeline, tasks: Sequence[ImagePrompts], on_result: OnResult) -> None:
        self._pipeline, self._on_result = pipeline, on_result
        preparers, callers, self._batch_size = pipeline.sizes
        self._tasks = pipeline.fetched_ahead(tasks)
        self._ready: queue.Queue[_PreparedPrompt | None] = queue.Queue()
        """None marks the end; each reader puts it back for the next one."""
        self._slots = threading.Semaphore(max(preparers, _AHEAD * callers * self._batch_size))
        """Bounds the decoded images in memory."""
        self._task_lock, self._batch_lock, self._result_lock = threading.Lock(), threading.Lock(), threading.Lock()
        self._stopped = threading.Event()
        """Set when no new work may start."""
        self._closed = False
        """Whether results are no longer reported."""
        self._error: BaseException | None = None
        self._preparing = preparers
        # Daemons: the end of a run does not wait for a slow server.
        self._preparers = [self._thread(self._prepare, f"prepare-{n}") for n in range(preparers)]
        self._callers = [self._thread(self._call, f"call-{n}") for n in range(callers)]

    def _thread(self, target: Callable[[], None], name: str) -> threading.Thread:
        def guarded() -> None:
            try:
                target()
            except BaseException as error:
                self._error = self._error or error
                self._stop()

        return threading.Thread(target=guarded, name=f"calotype-caption-{name}", daemon=True)

    def run(self, wait: Callable[[], None]) -> None:
        for thread in (*self._preparers, *self._callers):
            thread.start()
        for thread in self._callers:
            while thread.is_alive() and self._error is None:
                thread.join(_POLL_SECONDS)
                wait()
        if self._error is not None:
            deadline = time.monotonic() + _GRACE_SECONDS
            for thread in self._callers:
                thread.join(max(0.0, deadline - time.monotonic()))
            raise self._error

    def close(self) -> None:
        self._stop()
        with self._result_lock:
            self._closed = True

    def _stop(self) -> None:
        self._stopped.set()
        self._ready.put(None)
        self._slots.release(len(self._preparers))  # wakes those that wait for one

    def _prepare(self) -> None:
        try:
            while (found := self._next_task()) is not None:
                task, reader = found
                known, prepared = self._pipeline.prepare(task, reader)
                for index, entry in known:
                    self._report(task, index, entry, new=False)
                for one in prepared:
                    self._ready.put(one)
                if not prepared:
                    self._slots.release()
        finally:
            with self._task_lock:
                self._preparing -= 1
                if not self._preparing:
                    self._ready.put(None)

    def _next_task(self) -> tuple[ImagePrompts, ImageReader] | None:
        self._slots.acquire()
        with self._task_lock:
            return None if self._stopped.is_set() else next(self._tasks, None)

    def _call(self) -> None:
        while batch := self._next_batch():
            for one, entry in zip(batch, self._pipeline.call(batch), strict=True):
                self._report(one.task, one.index, entry, new=True)

    def _next_batch(self) -> list[_PreparedPrompt]:
        batch: list[_PreparedPrompt] = []
        with self._batch_lock:
            while len(batch) < self._batch_size and not self._stopped.is_set():
                one = self._ready.get()
                if one is None:
                    self._ready.put(None)
                    break
                batch.append(one)
                if one.last:
                    self._slots.release()
        return [] if self._stopped.is_set() else batch

    def _report(self, task: ImagePrompts, index: int, entry: LedgerEntry, *, new: bool) -> None:
        with self._result_lock:
            if not self._closed:
                self._on_result(task, index, entry, new)
