"""`ActorPool`: actors of a Ray cluster that process chunks of a list. If one dies, another gets its chunks."""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, NamedTuple

from calotype.core.quiet import is_quiet
from calotype.errors import CalotypeError, ConfigError, MissingDependencyError
from calotype.terminal import get_logger

try:
    import ray
except ModuleNotFoundError as error:
    raise MissingDependencyError("ray", extra="ray", purpose="to work on a cluster") from error

__all__ = [
    "ActorPool",
    "PoolSize",
    "actor_class",
    "chunk_size",
    "connected",
    "has_gpus",
    "pool_size",
    "put_shared",
    "result_of",
    "worker_name",
]

logger = get_logger("calotype")

_TRIES: Final = 3
"""Workers that may die on one chunk before the run fails with its name."""
_IN_FLIGHT: Final = 2
"""Chunks submitted to a worker at once, so that it does not wait for the next one."""
_CHUNKS: Final = 8
"""Minimum number of chunks for each worker, so that all end at about the same time."""
_MOST: Final = 1024
"""Maximum number of items in a chunk: a longer one saves nothing, and reports progress too rarely."""
_POLL_INTERVAL: Final = 0.2
"""Seconds between two calls of `poll`."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster: the one this process is connected to, else the one at `address`, else start one here.

    Raises:
        ConfigError: The cluster is unreachable.
    """
    if ray.is_initialized():
        yield
        return
    named = address or os.environ.get("RAY_ADDRESS") or "this machine"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _check_reachable(named)
        level = logging.ERROR if is_quiet() else logging.WARNING
        ray.init(address=address, include_dashboard=False, logging_level=level)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"address: no Ray cluster is reachable at {named} ({error}); expected the address that `ray start --head` "
            "printed, such as 10.0.0.1:6379, or none to start a cluster here"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Open a connection, with a timeout: Ray itself retries a wrong address for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


class PoolSize(NamedTuple):
    """The number of workers, and the resources of each."""

    workers: int
    cpus: int
    """CPUs of one worker."""
    gpus: int
    """GPUs of one worker."""


def pool_size(device: str, workers: int | None) -> PoolSize:
    """Return one worker for each GPU, or for each machine: each holds a copy of the models and uses all its cores.

    Args:
        device: Device type of a worker: `cuda` reserves a GPU for it, anything else none.
        workers: Number of workers; None for as many as the cluster has resources for.

    Raises:
        ConfigError: The cluster does not have the resources for `workers`.
    """
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    cpus = [int(machine.get("CPU", 0)) for machine in machines]
    if device == "cuda":
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
        hint = "" if most else f"; device {device!r} needs some (choose another with --device)"
        raise ConfigError(f"workers: found {count}, and the cluster has {what} for {most}{hint}")
    return PoolSize(count, share, int(device == "cuda"))


def actor_class(kind: type, size: PoolSize) -> Any:
    """Return a class as a Ray actor class with the resources of one worker."""
    return ray.remote(kind).options(num_cpus=size.cpus, num_gpus=size.gpus)


def put_shared(value: Any) -> Any:
    """Put a value into Ray's object store, which sends it to each machine once; return the reference."""
    return ray.put(value)


def has_gpus() -> bool:
    """Return whether any machine of the cluster has a GPU."""
    return bool(ray.cluster_resources().get("GPU"))  # type: ignore[no-untyped-call]


@dataclass(slots=True, kw_only=True, eq=False)
class _Chunk:
    """Consecutive items of the list. Without items: the start-up of a worker."""

    start: int = 0
    """Index of the first item."""
    items: Sequence[Any] = ()
    deaths: int = 0
    """Workers that died on it."""


@dataclass(slots=True, eq=False)
class _Worker:
    """An actor, and the chunks that were submitted to it, in order."""

    actor: Any
    submitted: deque[tuple[_Chunk, Any]] = field(default_factory=deque)
    """Each chunk with Ray's reference to its result."""
    started: bool = False


class ActorPool:
    """Actors that process chunks of a list. A context manager: they start and end with it.

    Args:
        start: Starts an actor; returns it and Ray's reference to the result of its start-up.
        workers: Number of actors.
        name: Returns the name of an item, for messages.
    """

    def __init__(self, start: Callable[[], tuple[Any, Any]], workers: int, name: Callable[[Any], str]) -> None:
        self._start, self._size, self._name = start, workers, name
        self._workers: list[_Worker] = []

    def __enter__(self) -> ActorPool:
        self._workers = [self._new_worker(_Chunk()) for _ in range(self._size)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for closed in [worker.actor.close.remote() for worker in self._workers if worker.started]:
                    with suppress(ray.exceptions.RayActorError):  # the next run finishes its open files
                        result_of(closed)
        finally:
            for worker in self._workers:
                ray.kill(worker.actor)

    def run(
        self,
        items: Sequence[Any],
        size: int,
        submit: Callable[[Any, int, Sequence[Any], bool], Any],
        on_result: Callable[[int, Sequence[Any], Any], None],
        *,
        poll: Callable[[], None] = lambda: None,
    ) -> None:
        """Process all items.

        Args:
            items: The list.
            size: Items of a chunk.
            submit: Called with (actor, index of the chunk's first item, its items, whether a worker died on it before);
                returns Ray's reference to the result.
            on_result: Called with (index of the chunk's first item, its items, the result).
            poll: Called several times a second; what it raises ends the run.

        Raises:
            CalotypeError: Three workers died on one chunk; or an actor raised it.
        """
        queue = deque(_Chunk(start=start, items=items[start : start + size]) for start in range(0, len(items), size))
        left = len(items)
        while left:
            # Keep two chunks with every worker.
            for worker in self._workers:
                while queue and worker.started and len(worker.submitted) < _IN_FLIGHT:
                    chunk = queue.popleft()
                    result = submit(worker.actor, chunk.start, chunk.items, chunk.deaths > 0)
                    worker.submitted.append((chunk, result))
            # Wait for the oldest chunk of any worker.
            pending = {worker.submitted[0][1]: worker for worker in self._workers if worker.submitted}
            ready, _ = ray.wait(list(pending), timeout=_POLL_INTERVAL)
            poll()
            if not ready:
                continue
            worker = pending[ready[0]]
            try:
                result = result_of(ready[0])
            except ray.exceptions.RayActorError as error:
                self._replace(worker, queue, error)
                continue
            chunk, _ = worker.submitted.popleft()
            worker.started = True
            if chunk.items:
                on_result(chunk.start, chunk.items, result)
                left -= len(chunk.items)

    def _new_worker(self, opening: _Chunk) -> _Worker:
        """Submit an actor. It gets chunks once it has started: the cluster may not have the resources for it yet."""
        actor, started = self._start()
        return _Worker(actor, deque([(opening, started)]))

    def _replace(self, worker: _Worker, queue: deque[_Chunk], error: Exception) -> None:
        """Put the chunks of a dead worker back at the front of the queue, and start another worker."""
        chunks = [chunk for chunk, _ in worker.submitted]
        open_chunk = chunks[0]
        open_chunk.deaths += 1
        if open_chunk.deaths == _TRIES:
            raise CalotypeError(
                f"{_TRIES} workers died, one after the other, {self._where(open_chunk)}; all that was done is kept. "
                f"Ray's message for the last one: {error}"
            ) from error
        logger.warning("a worker died %s; another one continues: %s", self._where(open_chunk), error)
        ray.kill(worker.actor)  # it may be alive, and only the connection lost
        opening = _Chunk() if worker.started else open_chunk
        queue.extendleft(chunk for chunk in reversed(chunks) if chunk.items)
        self._workers[self._workers.index(worker)] = self._new_worker(opening)

    def _where(self, chunk: _Chunk) -> str:
        """Describe where a worker died: `on a.jpg and the 3 after it`."""
        if not chunk.items:
            return "at its start"
        first, more = self._name(chunk.items[0]), len(chunk.items) - 1
        return f"on {first} and the {more} after it" if more else f"on {first}"


def result_of(ref: Any) -> Any:
    """Return the result of an actor's method. calotype's own errors are raised as they are, without Ray's wrapper."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CalotypeError):
            raise error.cause from None
        raise


def worker_name() -> str:
    """Return the name of this process, for messages."""
    return f"worker on {socket.gethostname()}"


def chunk_size(items: int, workers: int, unit: int) -> int:
    """Return the number of items of a chunk: a multiple of `unit`, small enough that all workers end together."""
    size = -(-items // (workers * _CHUNKS))
    return max(1, min(_MOST, -(-size // unit) * unit))
