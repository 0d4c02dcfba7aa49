"""The Ray engine: one chunk worker a GPU or machine of a cluster, each with models and shards of its own."""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple

import cloudpickle
import torch

from calotype.encodings.addresses import Fingerprints, Picture
from calotype.encodings.job import EncodeJob
from calotype.encodings.report import EncodeReport
from calotype.encodings.work import Text
from calotype.encodings.worker import Done, Progress
from calotype.engine.run import run
from calotype.errors import CalotypeError, ConfigError, MissingDependencyError
from calotype.progress import Track, silent

try:
    import ray
except ModuleNotFoundError as error:
    raise MissingDependencyError("ray", extra="ray", purpose="to encode on a cluster") from error

__all__ = ["encode"]

logger = logging.getLogger("calotype")

_TRIES: Final = 3
"""Workers that may die over one chunk before it is held to be the chunk's fault."""
_IN_FLIGHT: Final = 2
"""Chunks given to a worker at once: the next is there when the first is done."""
_CHUNKS: Final = 8
"""Chunks for each worker, at the least, so that all end at about the same time."""
_MOST: Final = 1024
"""Items of a chunk at the most: beyond that nothing is saved, and progress comes too rarely."""
_UNIT: Final = {"texts": 32, "pictures": 4}
"""Chunks are multiples of a usual batch."""

_Kind = Literal["texts", "pictures"]


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
        chunk: Pictures or texts that a worker gets at once; by default by their number, up to 1024.
        track: Shows how far it is.

    Raises:
        ConfigError: No cluster answers, or it has no room for the workers; the model is another on one of the machines;
            or what the local engine says.
        StoreError: The store can't be written, or its disk is too small.
        CalotypeError: Three workers died over one chunk.
    """
    if chunk is not None and chunk < 1:
        raise ConfigError(f"chunk: found {chunk}; expected a number above 0, or None")
    with _connected(address):
        room = _room(job.models.device, workers)
        return run(job, lambda: _Pool(job, room, chunk), track)


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    named = address or os.environ.get("RAY_ADDRESS") or "this machine"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _knock(named)
        ray.init(address=address, include_dashboard=False, logging_level=logging.WARNING)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"address: no Ray cluster can be had at {named} ({error}); expected the address that `ray start --head` "
            "printed, such as 10.0.0.1:6379, or none to start a cluster here"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself tries a wrong address for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


class _Room(NamedTuple):
    """What a cluster has for workers."""

    workers: int
    cpus: int
    """For each."""
    gpus: int
    """For each."""


def _room(device: torch.device, workers: int | None) -> _Room:
    """As many workers as there are GPUs, or machines: each holds a copy of the models, and uses all cores it gets."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    cpus = [int(machine.get("CPU", 0)) for machine in machines]
    if device.type == "cuda":
        gpus = [int(machine.get("GPU", 0)) for machine in machines]
        share = min((cpu // gpu for cpu, gpu in zip(cpus, gpus, strict=True) if gpu), default=0)
        most, what = sum(gpus), "GPUs"
    else:
        wanted = 1 if workers is None else workers
        fits = [n for n in range(1, min(filter(None, cpus), default=1) + 1) if sum(cpu // n for cpu in cpus) >= wanted]
        share = max(fits, default=1)
        most, what = sum(cpu // share for cpu in cpus), "CPUs"
    count = most if workers is None else workers
    if not 1 <= count <= most:
        hint = "" if most else f"; device {device.type!r} needs some (choose another with --device)"
        raise ConfigError(f"workers: found {count}, and the cluster has {what} for {most}{hint}")
    return _Room(count, share, int(device.type == "cuda"))


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
                f"{_machine()}: the job can't be opened there: {error}. Data, model, store and $CALOTYPE_CACHE have to "
                "be on storage that all machines of the cluster see under one path"
            ) from error
        if found != fingerprints:
            raise ConfigError(
                f"{_machine()}: the model in {models.folder} is not the one that is there on the machine that began "
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
        done.add(worker.texts(items) if kind == "texts" else worker.pictures(items, scaling=first))
        return done

    def close(self) -> None:
        """Finishes the shard."""
        self._worker.close()


def _machine() -> str:
    return f"worker on {socket.gethostname()}"


@dataclass(slots=True, kw_only=True, eq=False)
class _Chunk:
    """Some neighbours of the work. Without items: a worker's opening."""

    start: int = 0
    """Where in the work it begins."""
    items: Sequence[Text] | Sequence[Picture] = ()
    lost: int = 0
    """Workers that died over it."""


@dataclass(slots=True, eq=False)
class _Member:
    """An actor and what it has been given, in order."""

    actor: Any
    given: deque[tuple[_Chunk, Any]] = field(default_factory=deque)
    """Chunks with Ray's reference to what comes of each."""
    opened: bool = False


class _Pool:
    """All workers of a cluster behind the face of one."""

    def __init__(self, job: EncodeJob, room: _Room, chunk: int | None) -> None:
        self._job, self._room, self._chunk = job, room, chunk
        self._fingerprints = Fingerprints(job.models.picture_fingerprint, job.models.text_fingerprint)
        self._pickled = ray.put(cloudpickle.dumps(job))
        self._make: Any = ray.remote(_Actor).options(num_cpus=room.cpus, num_gpus=room.gpus)
        self._members: list[_Member] = []

    def __enter__(self) -> _Pool:
        self._members = [self._started(_Chunk()) for _ in range(self._room.workers)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for closed in [member.actor.close.remote() for member in self._members if member.opened]:
                    with suppress(ray.exceptions.RayActorError):  # the next run finishes its shard
                        _result(closed)
        finally:
            for member in self._members:
                ray.kill(member.actor)
        self._job.store.refresh()

    def texts(self, texts: Sequence[Text], *, progress: Progress | None = None) -> Done:
        return self._all("texts", texts, progress)

    def pictures(self, pictures: Sequence[Picture], *, progress: Progress | None = None) -> Done:
        return self._all("pictures", pictures, progress)

    def _all(self, kind: _Kind, items: Sequence[Any], progress: Progress | None) -> Done:
        """Keeps every worker busy until all is done."""
        results: dict[int, Done] = {}
        size = self._chunk or _chunk_size(len(items), self._room.workers, _UNIT[kind])
        queue = deque(_Chunk(start=start, items=items[start : start + size]) for start in range(0, len(items), size))
        left = len(items)
        while left:
            for member in self._members:
                while queue and member.opened and len(member.given) < _IN_FLIGHT:
                    chunk = queue.popleft()
                    first, again = chunk.start == 0, chunk.lost > 0
                    ref = member.actor.encode.remote(kind, chunk.items, first=first, again=again)
                    member.given.append((chunk, ref))
            awaited = {member.given[0][1]: member for member in self._members if member.given}
            (ref, *_), _ = ray.wait(list(awaited))
            member = awaited[ref]
            try:
                result = _result(ref)
            except ray.exceptions.RayActorError as error:
                self._replace(member, queue, error)
                continue
            chunk, _ = member.given.popleft()
            member.opened = True
            if chunk.items:
                results[chunk.start] = result
                left -= len(chunk.items)
                if progress is not None:
                    progress(len(chunk.items))
        done = Done()
        for start in sorted(results):  # as one worker would report it
            done.add(results[start])
        return done

    def _started(self, opening: _Chunk) -> _Member:
        """A new actor. It gets chunks when it has opened: a cluster may have no place for it until later, or never."""
        actor = self._make.remote()
        opened = actor.open.remote(self._pickled, max(1, self._room.cpus), self._fingerprints)
        return _Member(actor, deque([(opening, opened)]))

    def _replace(self, member: _Member, queue: deque[_Chunk], error: Exception) -> None:
        """Puts what a dead worker had back in front, and another in its place."""
        chunks = [chunk for chunk, _ in member.given]
        at_fault = chunks[0]
        at_fault.lost += 1
        if at_fault.lost == _TRIES:
            raise CalotypeError(
                f"{_TRIES} workers died, one after the other, {self._over(at_fault)}; all that was encoded is kept. "
                f"Ray says of the last: {error}"
            ) from error
        logger.warning("a worker died %s; another goes on: %s", self._over(at_fault), error)
        ray.kill(member.actor)  # where only the connection to it is gone
        opening = _Chunk() if member.opened else at_fault
        queue.extendleft(chunk for chunk in reversed(chunks) if chunk.items)
        self._members[self._members.index(member)] = self._started(opening)

    def _over(self, chunk: _Chunk) -> str:
        if not chunk.items:
            return "before it could begin"
        first, more = self._job.dataset.manifest[chunk.items[0].index].id, len(chunk.items) - 1
        return f"over {first} and the {more} after it" if more else f"over {first}"


def _result(ref: Any) -> Any:
    """What an actor's method gave. Our own errors come as they were raised, without Ray's account of the way."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CalotypeError):
            raise error.cause from None
        raise


def _chunk_size(items: int, workers: int, unit: int) -> int:
    """Small enough that all workers end at about the same time, and whole batches."""
    size = -(-items // (workers * _CHUNKS))
    return max(1, min(_MOST, -(-size // unit) * unit))
