"""`CaptionPipeline`: images prepared ahead in threads, and the backend kept busy with as many calls as it wants."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
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

__all__ = ["Answered", "CaptionPipeline", "unreadable"]

Answered = Callable[[ImagePrompts, int, LedgerEntry, bool], None]
"""Called with (task, which of its questions, the answer, whether it was asked for now), by one thread at a time."""

_AHEAD: Final = 2
"""Images prepared and waiting, as a multiple of those that the backend works on at once."""
_PATIENCE: Final = 0.2
"""Seconds after which whoever waits looks up: whether to stop, how far it is."""
_GRACE: Final = 5.0
"""Seconds that calls under way have to come to an end when another has failed for good: their answers count."""


@dataclass(slots=True, kw_only=True)
class _Ready:
    """A question with its image."""

    task: ImagePrompts
    place: int
    """Among the task's questions."""
    picture: str
    """Hash of its file."""
    image: Image.Image
    last: bool
    """Of those that hold this image."""

    @property
    def question(self) -> RenderedPrompt:
        return self.task.questions[self.place]

    def request(self) -> CaptionRequest:
        asked = self.question
        return CaptionRequest(
            image=self.image, prompt=asked.prompt, system=asked.system, task=asked.task, seed=asked.seed
        )


class CaptionPipeline:
    """Answers questions about images: from the ledger where that knows, else by a backend.

    Args:
        backend: Who is asked.
        reader: Reads the images.
        ledger: Is asked first, and told of each answer before anybody else.
        pixels: The budget that images are made to fit.
        retry_failed: Ask again where the ledger knows of a failure.
        threads: Images prepared at once.
        keep: Write answers to the ledger.
    """

    def __init__(
        self,
        backend: CaptionBackend,
        reader: ImageReader,
        ledger: CaptionLedger,
        *,
        pixels: int,
        retry_failed: bool = False,
        threads: int | None = None,
        keep: bool = True,
    ) -> None:
        self._backend, self._reader, self._ledger = backend, reader, ledger
        self._asker = BackendIdentity.of(backend, pixels)
        self._pixels, self._retry_failed, self._keep = pixels, retry_failed, keep
        self._threads = threads or min(8, (os.cpu_count() or 1) + 1)

    def run(
        self, tasks: Sequence[ImagePrompts], answered: Answered, *, wait: Callable[[], None] = lambda: None
    ) -> None:
        """Answers all questions, in no certain order.

        An answer is in the ledger as soon as the backend gives it. An exception in the caller's thread (Ctrl-C, or
        what `wait` raises) ends the run at once: calls under way are not waited for.

        Args:
            tasks: What to ask.
            answered: Is told of each answer.
            wait: Called in the caller's thread several times a second.

        Raises:
            CaptionError: As the backend.
            EditError: The ledger can't be written.
        """
        run = _Run(self, tasks, answered)
        try:
            run.go(wait)
        finally:
            run.close()

    def prepare(self, task: ImagePrompts) -> tuple[list[tuple[int, LedgerEntry]], list[_Ready]]:
        """Reads one image. Gives what is known of its questions already, and what is to be asked."""
        try:
            data = self._reader.read_bytes(task.ref)
        except ImageError as error:
            return unreadable(task, self._asker, error), []
        picture = xxhash.xxh3_128_hexdigest(data)
        known: list[tuple[int, LedgerEntry]] = []
        open_: list[int] = []
        for place, question in enumerate(task.questions):
            answer = self._known(task.id, question, picture)
            if answer is None:
                open_.append(place)
            else:
                known.append((place, answer))
        if not open_:
            return known, []
        try:
            image = prepare_image(data, pixels=self._pixels, reader=self._reader)
        except ImageError as error:
            failed = dict(unreadable(task, self._asker, error))
            return [*known, *((place, failed[place]) for place in open_)], []
        return known, [
            _Ready(task=task, place=place, picture=picture, image=image, last=place == open_[-1]) for place in open_
        ]

    def _known(self, id: str, question: RenderedPrompt, picture: str) -> LedgerEntry | None:
        if question.known is not None:
            return question.answer(self._asker, id, picture, text=question.known)
        if question.error is not None:
            return question.answer(self._asker, id, picture, error=question.error, kind="no_value")
        answer = self._ledger.get(question.key(picture))
        if answer is None or (answer.text is None and self._retry_failed):
            return None
        return replace(answer, id=id)

    def ask(self, ready: Sequence[_Ready]) -> list[LedgerEntry]:
        """One call of the backend; what it says is in the ledger when this returns."""
        requests = [one.request() for one in ready]
        try:
            said = self._backend.caption(requests)
        except CalotypeError:
            raise
        except Exception as error:  # not what the protocol allows; the other images need not suffer for it
            reason = f"the backend {self._backend.name!r} failed on it: {type(error).__name__}: {error}"
            said = [CaptionAnswer(error=reason, kind="failed") for _ in requests]
        if len(said) != len(ready):
            raise CaptionError(
                f"caption backend {self._backend.name!r}: gave {len(said)} answers to {len(ready)} requests; expected "
                "one for each, in their order"
            )
        answers = [self._kept(one, given) for one, given in zip(ready, said, strict=True)]
        if self._keep:
            for answer in answers:
                self._ledger.append(answer)
        return answers

    def _kept(self, one: _Ready, said: CaptionAnswer) -> LedgerEntry:
        return one.question.answer(
            self._asker,
            one.task.id,
            one.picture,
            text=None if said.text is None else tidy(said.text),
            error=said.error,
            kind=said.kind,
            finish_reason=said.finish_reason,
            at=time.time(),
        )

    @property
    def wants(self) -> tuple[int, int, int]:
        """(threads that prepare, calls at a time, requests a call)."""
        return self._threads, self._backend.concurrency, self._backend.batch_size


def unreadable(task: ImagePrompts, asker: BackendIdentity, error: ImageError) -> list[tuple[int, LedgerEntry]]:
    """The answers about an image that can't be had. Never in the ledger: looking again costs nothing."""
    return [
        (place, question.answer(asker, task.id, "", error=error.reason, kind=error.kind))
        for place, question in enumerate(task.questions)
    ]


class _Run:
    """The threads of one run: some prepare images, some call the backend. No one waits for a batch of another."""

    def __init__(self, worker: CaptionPipeline, tasks: Sequence[ImagePrompts], answered: Answered) -> None:
        self._worker, self._answered = worker, answered
        preparers, callers, self._batch = worker.wants
        self._tasks = iter(tasks)
        self._ready: queue.Queue[_Ready | None] = queue.Queue()
        self._room = threading.Semaphore(max(preparers, _AHEAD * callers * self._batch))
        self._next, self._taking, self._telling = threading.Lock(), threading.Lock(), threading.Lock()
        self._stopped = threading.Event()
        """Nothing new is begun."""
        self._closed = False
        """Nobody is told of anything any more."""
        self._error: BaseException | None = None
        self._preparing = preparers
        # Daemons: whoever ends the run does not wait for a server that is slow to answer.
        self._preparers = [self._thread(self._prepare, f"prepare-{n}") for n in range(preparers)]
        self._callers = [self._thread(self._call, f"call-{n}") for n in range(callers)]

    def _thread(self, work: Callable[[], None], name: str) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                self._error = self._error or error
                self._stop()

        return threading.Thread(target=guarded, name=f"calotype-caption-{name}", daemon=True)

    def go(self, wait: Callable[[], None]) -> None:
        for thread in (*self._preparers, *self._callers):
            thread.start()
        for thread in self._callers:
            while thread.is_alive() and self._error is None:
                thread.join(_PATIENCE)
                wait()
        if self._error is not None:
            last = time.monotonic() + _GRACE
            for thread in self._callers:
                thread.join(max(0.0, last - time.monotonic()))
            raise self._error

    def close(self) -> None:
        self._stop()
        with self._telling:
            self._closed = True

    def _stop(self) -> None:
        self._stopped.set()
        self._ready.put(None)

    def _prepare(self) -> None:
        try:
            while (task := self._take_task()) is not None:
                known, ready = self._worker.prepare(task)
                for place, answer in known:
                    self._tell(task, place, answer, new=False)
                for one in ready:
                    self._ready.put(one)
                if not ready:
                    self._room.release()
        finally:
            with self._next:
                self._preparing -= 1
                if not self._preparing:
                    self._ready.put(None)

    def _take_task(self) -> ImagePrompts | None:
        while not self._room.acquire(timeout=_PATIENCE):
            if self._stopped.is_set():
                return None
        with self._next:
            return None if self._stopped.is_set() else next(self._tasks, None)

    def _call(self) -> None:
        while batch := self._take_batch():
            for one, answer in zip(batch, self._worker.ask(batch), strict=True):
                self._tell(one.task, one.place, answer, new=True)

    def _take_batch(self) -> list[_Ready]:
        batch: list[_Ready] = []
        with self._taking:
            while len(batch) < self._batch and not self._stopped.is_set():
                one = self._ready.get()
                if one is None:
                    self._ready.put(None)  # for the others
                    break
                batch.append(one)
                if one.last:
                    self._room.release()
        return [] if self._stopped.is_set() else batch

    def _tell(self, task: ImagePrompts, place: int, answer: LedgerEntry, *, new: bool) -> None:
        with self._telling:
            if not self._closed:
                self._answered(task, place, answer, new)
