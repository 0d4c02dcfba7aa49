"""`caption_on_cluster`: run a captioning job on a Ray cluster, with one backend per GPU or machine."""

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
from calotype.captioning.local_engine import writing
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

_Results = list[tuple[int, int, LedgerEntry, bool]]
"""(index of the image in the chunk, index of the prompt, result, whether it is new)."""


def caption_on_cluster(
    job: CaptionJob,
    backend: str,
    options: Mapping[str, Any],
    *,
    address: str | None = None,
    track: Track = silent,
    stop: threading.Event | None = None,
) -> CaptionReport:
    """Generate the missing captions on a Ray cluster; the result equals that of one machine.

    Each actor opens the backend, reads its images and writes a part of the ledger; the captions are written by this
    process. The data must be on storage that all machines mount at the same path, and a server's URL must be reachable
    from all of them. A worker that dies loses the requests in progress.

    Args:
        job: What to caption.
        backend: Name of the backend.
        options: Options of the backend. There is one actor per GPU of the cluster; one per machine for `http`, with a
            `device` other than `cuda`, or without GPUs.
        address: Address of the cluster. Default: `$RAY_ADDRESS`, then a cluster on this machine, else one is started
            for the run.
        track: Shows the progress.
        stop: Ends the run early when it is set.

    Raises:
        ConfigError: No cluster can be reached, or it lacks resources for the actors; or see `caption_locally`.
        CaptionError: The backend of any machine raised it.
        EditError: The captions or the ledger can't be written.
        CalotypeError: Three workers died over one chunk.
    """
    with connected(address):
        # Start the first actor: its backend identifies the model, which the plan depends on.
        default = "cuda" if backend != "http" and has_gpus() else "cpu"
        size = pool_size(str(options.get("device", default)).partition(":")[0], None)
        actors = _Actors(job, backend, options, size)
        identity = actors.identity()
        ledger = CaptionLedger(job.root)
        writer = job.plan(identity, ledger, track=track)
        chunk = chunk_size(len(writer.tasks), size.workers, _UNIT)

        def submit(actor: Any, start: int, tasks: Sequence[ImagePrompts], again: bool) -> Any:
            return actor.caption.remote(tasks, again=again)

        def on_result(start: int, tasks: Sequence[ImagePrompts], results: _Results) -> None:
            for image, index, entry, new in results:
                writer.add(tasks[image], index, entry, new)

        with writing(writer, track, stop) as wait, ActorPool(actors.start, size.workers, lambda task: task.id) as pool:
            pool.run(writer.tasks, chunk, submit, on_result, poll=wait)
    return writer.report()


class _Actors:
    """Starts the actors of a job."""

    def __init__(self, job: CaptionJob, backend: str, options: Mapping[str, Any], size: PoolSize) -> None:
        order = _ActorOptions(
            backend=backend,
            options=dict(options),
            reader=job.reader,
            root=job.root,
            pixels=job.pixels,
            retry_failed=job.retry_failed,
        )
        self._order = put_shared(cloudpickle.dumps(order))
        self._make = actor_class(_Actor, size)
        self._identity: BackendIdentity | None = None
        self._first: tuple[Any, Any] | None = None
        self._first = self.start()

    def identity(self) -> BackendIdentity:
        """Return the identity of the first actor's backend: the model may exist on the cluster only."""
        assert self._first is not None
        identity: BackendIdentity = result_of(self._first[1])
        self._identity = identity
        return identity

    def start(self) -> tuple[Any, Any]:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        actor = self._make.remote()
        return actor, actor.open.remote(self._order, self._identity)


@dataclass(frozen=True, kw_only=True, slots=True)
class _ActorOptions:
    """The options of an actor."""

    backend: str
    options: Mapping[str, Any]
    reader: ImageReader
    root: Path
    pixels: int
    retry_failed: bool


class _Actor:
    """A caption pipeline in a Ray actor."""

    def open(self, order: bytes, expected: BackendIdentity | None) -> BackendIdentity:
        """Open the backend, and check that it equals that of the other machines."""
        opened: _ActorOptions = cloudpickle.loads(order)
        try:
            self._backend: CaptionBackend = open_backend(opened.backend, **opened.options)
        except CalotypeError as error:
            raise type(error)(f"{worker_name()}: {error}") from error
        identity = BackendIdentity.of(self._backend, opened.pixels)
        if expected is not None and identity != expected:
            raise ConfigError(
                f"{worker_name()}: the model is {identity.model} with {dict(identity.parameters)}, and on the first "
                f"machine {expected.model} with {dict(expected.parameters)}; all machines need the same model"
            )
        self._ledger = CaptionLedger(opened.root)
        self._pipeline = CaptionPipeline(
            self._backend, opened.reader, self._ledger, pixels=opened.pixels, retry_failed=opened.retry_failed
        )
        return identity

    def caption(self, tasks: Sequence[ImagePrompts], *, again: bool) -> _Results:
        """Caption a chunk; the results of an actor that died on it are in the ledger."""
        if again:
            self._ledger.refresh()
        images = {id(task): image for image, task in enumerate(tasks)}
        results: _Results = []
        self._pipeline.run(tasks, lambda task, index, entry, new: results.append((images[id(task)], index, entry, new)))
        return results

    def close(self) -> None:
        """Merge its part of the ledger, and close the backend."""
        self._ledger.close()
        self._backend.close()
