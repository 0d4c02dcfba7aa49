"""The Ray engine: one chunk worker a GPU or machine of a cluster, each with models and shards of its own."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Literal

import cloudpickle
import torch

from calotype.core.actor_pool import (
    ActorPool,
    PoolSize,
    actor_class,
    chunk_size,
    connected,
    pool_size,
    put_shared,
    worker_name,
)
from calotype.encodings.dataset_records import Fingerprints, ImageRecord
from calotype.encodings.job import EncodeJob
from calotype.encodings.missing_records import TextRecord
from calotype.encodings.report import EncodeReport
from calotype.encodings.worker import Done
from calotype.errors import CalotypeError, ConfigError
from calotype.progress import Show, Track, counter, silent

__all__ = ["encode"]

_UNIT: Final = {"texts": 32, "images": 4}
"""Chunks are multiples of a usual batch."""

_Kind = Literal["texts", "images"]


def encode(
    job: EncodeJob,
    *,
    address: str | None = None,
    workers: int | None = None,
    chunk: int | None = None,
    track: Track = silent,
) -> EncodeReport:
    """Encodes what is missing on a Ray cluster; what comes of it is what the local engine would give.

    Only lists of work go to the workers, and only counts come back: each writes shards of its own, straight into the
    store. So data, model, store and `$CALOTYPE_CACHE` have to be on storage that all machines see under one path, and
    calotype has to be installed on each.

    A worker that dies costs its open batch: another one gets the rest of its chunk. Whatever ends the run (an error,
    Ctrl-C, a kill), the batches that were written stay, and the next run goes on from there.

    Args:
        job: What to encode. With models on `cuda` there is a worker for each GPU of the cluster, else one a machine.
        address: Of the cluster; by default `$RAY_ADDRESS`, then a cluster that runs on this machine; if there is
            neither, one is started here for the time of the run. A process that is connected stays so.
        workers: How many; by default as many as the cluster has room for.
        chunk: Images or texts that a worker gets at once; by default by their number, up to 1024.
        track: Shows how far it is.

    Raises:
        ConfigError: No cluster answers, or it has no room for the workers; the model is another on one of the machines;
            or what the local engine says.
        StoreError: The store can't be written, or its disk is too small.
        CalotypeError: Three workers died over one chunk.
    """
    if chunk is not None and chunk < 1:
        raise ConfigError(f"chunk: found {chunk}; expected a number above 0, or None")
    with connected(address):
        room = pool_size(job.models.device.type, workers)
        return job.run(lambda: _Pool(job, room, chunk), track)


class _Actor:
    """A chunk worker in a process of its own."""

    def open(self, job: bytes, threads: int, fingerprints: Fingerprints) -> None:
        """Makes the worker. The models are loaded when the first chunk comes."""
        try:
            opened: EncodeJob = cloudpickle.loads(job)
            models = opened.models
            found = Fingerprints(models.picture_fingerprint, models.text_fingerprint)
        except (CalotypeError, OSError) as error:
            raise ConfigError(
                f"{worker_name()}: the job can't be opened there: {error}. Data, model, store and $CALOTYPE_CACHE have "
                "to be on storage that all machines of the cluster see under one path"
            ) from error
        if found != fingerprints:
            raise ConfigError(
                f"{worker_name()}: the model in {models.folder} is not the one that is there on the machine that began "
                "the run: put it on storage that all machines share, or copy it again"
            )
        models.device = torch.device(models.device.type)  # Ray shows each worker its own GPU as the only one
        opened.threads = threads
        torch.set_num_threads(threads)
        self._worker = opened.worker()

    def encode(self, kind: _Kind, items: Sequence[Any], *, first: bool, again: bool) -> Done:
        """Encodes a chunk.

        Args:
            kind: What it is of.
            items: Of the work, some neighbours.
            first: It is the first one of the work, which keeps what all of them share.
            again: Another worker had begun it.
        """
        worker, done = self._worker, Done()
        if again:
            items, done = worker.remainder(items)
        done.add(worker.texts(items) if kind == "texts" else worker.images(items, scaling=first))
        return done

    def close(self) -> None:
        """Finishes the shard."""
        self._worker.close()


class _Pool:
    """All workers of a cluster behind the face of one."""

    def __init__(self, job: EncodeJob, room: PoolSize, chunk: int | None) -> None:
        self._job, self._room, self._chunk = job, room, chunk
        self._fingerprints = Fingerprints(job.models.picture_fingerprint, job.models.text_fingerprint)
        self._pickled = put_shared(cloudpickle.dumps(job))
        self._make = actor_class(_Actor, room)
        self._actors = ActorPool(self._start, room.workers, lambda item: job.dataset.manifest[item.index].id)

    def _start(self) -> tuple[Any, Any]:
        actor = self._make.remote()
        return actor, actor.open.remote(self._pickled, max(1, self._room.cpus), self._fingerprints)

    def __enter__(self) -> _Pool:
        self._actors.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._actors.__exit__(kind, error, trace)
        self._job.store.refresh()

    def texts(self, texts: Sequence[TextRecord], *, progress: Show | None = None) -> Done:
        return self._all("texts", texts, progress)

    def images(self, images: Sequence[ImageRecord], *, progress: Show | None = None) -> Done:
        return self._all("images", images, progress)

    def _all(self, kind: _Kind, items: Sequence[Any], progress: Show | None) -> Done:
        results: dict[int, Done] = {}
        more = counter(progress, len(items))

        def give(actor: Any, start: int, chunk: Sequence[Any], again: bool) -> Any:
            return actor.encode.remote(kind, chunk, first=start == 0, again=again)

        def took(start: int, chunk: Sequence[Any], result: Done) -> None:
            results[start] = result
            more(len(chunk))

        size = self._chunk or chunk_size(len(items), self._room.workers, _UNIT[kind])
        self._actors.run(items, size, give, took)
        done = Done()
        for start in sorted(results):  # as one worker would report it
            done.add(results[start])
        return done
