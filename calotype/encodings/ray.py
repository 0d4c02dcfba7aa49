"""The Ray engine: one worker for each GPU or machine of a cluster, each with its own models and shards."""

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
"""Chunks are multiples of these typical batch sizes."""

_Kind = Literal["texts", "images"]


def encode(
    job: EncodeJob,
    *,
    address: str | None = None,
    workers: int | None = None,
    chunk: int | None = None,
    track: Track = silent,
) -> EncodeReport:
    """Encode the missing records of a job on a Ray cluster, with the same result as the local engine.

    Workers receive lists of items and return counts; each writes its own shards, directly into the store. So data,
    model, store and `$CALOTYPE_CACHE` have to be on storage that all machines see under the same path, and calotype has
    to be installed on each machine.

    If a worker dies, only its unwritten batches are lost: another worker encodes the rest of its chunk. If the run ends
    early (an error, Ctrl-C, a kill), the batches already written remain, and the next run encodes the rest.

    Args:
        job: The job. With models on `cuda` there is a worker for each GPU of the cluster, else for each machine.
        address: Address of the cluster. Defaults to `$RAY_ADDRESS`, then to a cluster that runs on this machine; if
            there is neither, one is started here until the end of the run. A process that is already connected uses
            its cluster.
        workers: Number of workers. Defaults to as many as the cluster has resources for.
        chunk: Images or texts that a worker receives at once. By default it depends on their number, at most 1024.
        track: Shows the progress.

    Raises:
        ConfigError: No cluster is reachable, or it does not have the resources for the workers; the model differs on
            one of the machines; or as for `EncodeJob.run`.
        StoreError: The store can't be written, or its disk has too little space.
        CalotypeError: Three workers died on one chunk.
    """
    if chunk is not None and chunk < 1:
        raise ConfigError(f"chunk: found {chunk}; expected a number above 0, or None")
    with connected(address):
        size = pool_size(job.models.device.type, workers)
        return job.run(lambda: _Pool(job, size, chunk), track)


class _Actor:
    """A Ray actor with an `EncodeWorker`."""

    def open(self, job: bytes, threads: int, fingerprints: Fingerprints) -> None:
        """Make the worker. The models are loaded with the first chunk.

        Args:
            job: The job, pickled.
            threads: Number of CPU threads.
            fingerprints: Those of the machine that started the run.

        Raises:
            ConfigError: The job can't be unpickled here, or the model on this machine differs.
        """
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
        models.device = torch.device(models.device.type)  # Ray makes only the worker's own GPU visible
        opened.threads = threads
        torch.set_num_threads(threads)
        self._worker = opened.worker()

    def encode(self, kind: _Kind, items: Sequence[Any], *, first: bool, again: bool) -> Done:
        """Encode a chunk.

        Args:
            kind: Kind of its items.
            items: Consecutive items of the list.
            first: Whether it is the first chunk of the list: it also stores the scaling, which all chunks share.
            again: Whether another worker died on it.
        """
        worker, done = self._worker, Done()
        if again:
            items, done = worker.remainder(items)
        done.add(worker.texts(items) if kind == "texts" else worker.images(items, scaling=first))
        return done

    def close(self) -> None:
        """Complete the shard."""
        self._worker.close()


class _Pool:
    """All workers of a cluster, as one `Encoder`."""

    def __init__(self, job: EncodeJob, size: PoolSize, chunk: int | None) -> None:
        self._job, self._size, self._chunk = job, size, chunk
        self._fingerprints = Fingerprints(job.models.picture_fingerprint, job.models.text_fingerprint)
        self._pickled = put_shared(cloudpickle.dumps(job))
        self._make = actor_class(_Actor, size)
        self._actors = ActorPool(self._start, size.workers, lambda item: job.dataset.manifest[item.index].id)

    def _start(self) -> tuple[Any, Any]:
        actor = self._make.remote()
        return actor, actor.open.remote(self._pickled, max(1, self._size.cpus), self._fingerprints)

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

    def images(self, image_records: Sequence[ImageRecord], *, progress: Show | None = None) -> Done:
        return self._all("images", image_records, progress)

    def _all(self, kind: _Kind, items: Sequence[Any], progress: Show | None) -> Done:
        """Encode all items in chunks, on all workers."""
        results: dict[int, Done] = {}
        more = counter(progress, len(items))

        def submit(actor: Any, start: int, chunk: Sequence[Any], again: bool) -> Any:
            return actor.encode.remote(kind, chunk, first=start == 0, again=again)

        def on_result(start: int, chunk: Sequence[Any], result: Done) -> None:
            results[start] = result
            more(len(chunk))

        size = self._chunk or chunk_size(len(items), self._size.workers, _UNIT[kind])
        self._actors.run(items, size, submit, on_result)
        done = Done()
        for start in sorted(results):  # in the order of one worker
            done.add(results[start])
        return done
