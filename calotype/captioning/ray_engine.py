"""Captioning on a Ray cluster: a backend on each machine or GPU, and a part of the ledger for each."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cloudpickle

from calotype.captioning.backend import CaptionBackend, open_backend
from calotype.captioning.job import CaptionJob
from calotype.captioning.ledger import CaptionLedger, LedgerEntry
from calotype.captioning.local_engine import under_way
from calotype.captioning.pipeline import CaptionPipeline
from calotype.captioning.prompts import BackendIdentity, ImagePrompts
from calotype.captioning.report import CaptionReport
from calotype.core.actor_pool import (
    ActorPool,
    PoolSize,
    actor_class,
    chunk_size,
    connected,
    has_gpus,
    pool_size,
    put_shared,
    result_of,
    worker_name,
)
from calotype.errors import CalotypeError, ConfigError
from calotype.images import ImageReader
from calotype.progress import Track, silent

__all__ = ["caption_on_cluster"]

_UNIT: Final = 4

_Given = list[tuple[int, int, LedgerEntry, bool]]
"""(which task of the chunk, which of its questions, the answer, whether it was asked for now)."""


def caption_on_cluster(
    job: CaptionJob,
    backend: str,
    options: Mapping[str, Any],
    *,
    address: str | None = None,
    workers: int | None = None,
    chunk: int | None = None,
    track: Track = silent,
    stop: threading.Event | None = None,
) -> CaptionReport:
    """Captions what is missing on a Ray cluster; what comes of it is what one machine would write.

    Each worker opens the backend for itself, reads its images, and writes a part of the ledger; captions are written
    here. So the data has to be on storage that all machines see under one path, and a server's address has to be one
    that all of them can reach. A worker that dies costs the answers it was waiting for.

    Args:
        job: What to caption.
        backend: Its name.
        options: Its options. There is a worker for each GPU of the cluster, or one a machine for `http`, with another
            `device` than `cuda`, or where there is no GPU.
        address: Of the cluster; by default `$RAY_ADDRESS`, then a cluster that runs on this machine; if there is
            neither, one is started here for the time of the run.
        workers: How many; by default as many as the cluster has room for.
        chunk: Images that a worker gets at once; by default by their number.
        track: Shows the progress.
        stop: Ends the run early when it is set.

    Raises:
        ConfigError: No cluster answers, or it has no room for the workers; or as `caption_locally`.
        CaptionError: As the backend on any of the machines.
        EditError: The captions or the ledger can't be written.
        CalotypeError: Three workers died over one chunk.
    """
    with connected(address):
        usual = "cuda" if backend != "http" and has_gpus() else "cpu"
        room = pool_size(str(options.get("device", usual)).partition(":")[0], workers)
        hired = _Hired(job, backend, options, room)
        asker = hired.asker()
        ledger = CaptionLedger(job.root)
        run = job.plan(asker, ledger, track=track)
        size = chunk or chunk_size(len(run.tasks), room.workers, _UNIT)

        def give(actor: Any, start: int, tasks: Sequence[ImagePrompts], again: bool) -> Any:
            return actor.caption.remote(tasks, again=again)

        def took(start: int, tasks: Sequence[ImagePrompts], given: _Given) -> None:
            for which, place, answer, new in given:
                run.take(tasks[which], place, answer, new)

        with under_way(run, track, stop) as wait, ActorPool(hired.start, room.workers, lambda task: task.id) as pool:
            pool.run(run.tasks, size, give, took, poll=wait)
    return run.report()


class _Hired:
    """Starts the actors of a job."""

    def __init__(self, job: CaptionJob, backend: str, options: Mapping[str, Any], room: PoolSize) -> None:
        order = _Order(
            backend=backend,
            options=dict(options),
            reader=job.reader,
            root=job.root,
            pixels=job.pixels,
            retry_failed=job.retry_failed,
        )
        self._order = put_shared(cloudpickle.dumps(order))
        self._make = actor_class(_Actor, room)
        self._asker: BackendIdentity | None = None
        self._first: tuple[Any, Any] | None = None
        self._first = self.start()

    def asker(self) -> BackendIdentity:
        """Who will answer, as the first actor finds: the model may be on the cluster only."""
        assert self._first is not None
        asker: BackendIdentity = result_of(self._first[1])
        self._asker = asker
        return asker

    def start(self) -> tuple[Any, Any]:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        actor = self._make.remote()
        return actor, actor.open.remote(self._order, self._asker)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Order:
    """What an actor needs to know."""

    backend: str
    options: Mapping[str, Any]
    reader: ImageReader
    root: Path
    pixels: int
    retry_failed: bool


class _Actor:
    """A caption worker in a process of its own."""

    def open(self, order: bytes, expected: BackendIdentity | None) -> BackendIdentity:
        """Makes the worker, and says who answers: the same as on the other machines."""
        opened: _Order = cloudpickle.loads(order)
        try:
            self._backend: CaptionBackend = open_backend(opened.backend, **opened.options)
        except CalotypeError as error:
            raise type(error)(f"{worker_name()}: {error}") from error
        asker = BackendIdentity.of(self._backend, opened.pixels)
        if expected is not None and asker != expected:
            raise ConfigError(
                f"{worker_name()}: {asker.model} answers there, with {dict(asker.parameters)}, and {expected.model} "
                f"with {dict(expected.parameters)} on the machine that began; all machines need the same model"
            )
        self._ledger = CaptionLedger(opened.root)
        self._worker = CaptionPipeline(
            self._backend, opened.reader, self._ledger, pixels=opened.pixels, retry_failed=opened.retry_failed
        )
        return asker

    def caption(self, tasks: Sequence[ImagePrompts], *, again: bool) -> _Given:
        """Answers a chunk; what another worker had answered of it before it died is in the ledger."""
        if again:
            self._ledger.refresh()
        places = {id(task): place for place, task in enumerate(tasks)}
        given: _Given = []
        self._worker.run(tasks, lambda task, place, answer, new: given.append((places[id(task)], place, answer, new)))
        return given

    def close(self) -> None:
        """Puts its part of the ledger with the others'."""
        self._ledger.close()
        self._backend.close()
