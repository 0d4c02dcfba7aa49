"""`Crew`: actors of a Ray cluster among whom a list of work is shared out; one that dies costs only its open work."""

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

from calotype.errors import CalotypeError, ConfigError, MissingDependencyError
from calotype.terminal import get_logger

try:
    import ray
except ModuleNotFoundError as error:
    raise MissingDependencyError("ray", extra="ray", purpose="to work on a cluster") from error

__all__ = [
    "Crew",
    "Room",
    "actor_class",
    "chunk_size",
    "connected",
    "find_room",
    "has_gpus",
    "machine",
    "result_of",
    "shared",
]

logger = get_logger("calotype")

_TRIES: Final = 3
"""Workers that may die over one chunk before it is held to be the chunk's fault."""
_IN_FLIGHT: Final = 2
"""Chunks given to a worker at once: the next is there when the first is done."""
_CHUNKS: Final = 8
"""Chunks for each worker, at the least, so that all end at about the same time."""
_MOST: Final = 1024
"""Items of a chunk at the most: beyond that nothing is saved, and progress comes too rarely."""
_PATIENCE: Final = 0.2
"""Seconds after which whoever waits looks up."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Has a cluster: the one that the process is in already, else that at `address`, else one started for the time.

    Raises:
        ConfigError: No cluster answers.
    """
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


class Room(NamedTuple):
    """What a cluster has for workers."""

    workers: int
    cpus: int
    """For each."""
    gpus: int
    """For each."""


def find_room(device: str, workers: int | None) -> Room:
    """As many workers as there are GPUs, or machines: each holds a copy of the models, and uses all cores it gets.

    Args:
        device: The type of device that a worker needs: `cuda`, or anything else for none.
        workers: How many; None for as many as fit.

    Raises:
        ConfigError: They don't fit.
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
    return Room(count, share, int(device == "cuda"))


def actor_class(kind: type, room: Room) -> Any:
    """A class as Ray's actors, each with its share of a cluster."""
    return ray.remote(kind).options(num_cpus=room.cpus, num_gpus=room.gpus)


def shared(value: Any) -> Any:
    """Ray's reference to a value that is sent to each machine once."""
    return ray.put(value)


def has_gpus() -> bool:
    """Whether any machine of the cluster has one."""
    return bool(ray.cluster_resources().get("GPU"))  # type: ignore[no-untyped-call]


@dataclass(slots=True, kw_only=True, eq=False)
class _Chunk:
    """Some neighbours of the work. Without items: a worker's opening."""

    start: int = 0
    """Where in the work it begins."""
    items: Sequence[Any] = ()
    lost: int = 0
    """Workers that died over it."""


@dataclass(slots=True, eq=False)
class _Member:
    """An actor and what it has been given, in order."""

    actor: Any
    given: deque[tuple[_Chunk, Any]] = field(default_factory=deque)
    """Chunks with Ray's reference to what comes of each."""
    opened: bool = False


class Crew:
    """Actors that are started with a `with`, and end with it.

    Args:
        start: Starts an actor; gives it, and Ray's reference to its opening.
        workers: How many.
        name: What a person calls an item of the work.
    """

    def __init__(self, start: Callable[[], tuple[Any, Any]], workers: int, name: Callable[[Any], str]) -> None:
        self._start, self._workers, self._name = start, workers, name
        self._members: list[_Member] = []

    def __enter__(self) -> Crew:
        self._members = [self._started(_Chunk()) for _ in range(self._workers)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for closed in [member.actor.close.remote() for member in self._members if member.opened]:
                    with suppress(ray.exceptions.RayActorError):  # the next run finishes what it had open
                        result_of(closed)
        finally:
            for member in self._members:
                ray.kill(member.actor)

    def share_out(
        self,
        items: Sequence[Any],
        size: int,
        give: Callable[[Any, int, Sequence[Any], bool], Any],
        took: Callable[[int, Sequence[Any], Any], None],
        *,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Keeps every worker busy until all is done.

        Args:
            items: The work.
            size: Items that a worker gets at once.
            give: Called with (actor, where the chunk begins, its items, whether another worker had begun it); gives
                Ray's reference to what comes of it.
            took: Called with (where the chunk begins, its items, what came of it).
            wait: Called several times a second.

        Raises:
            CalotypeError: Three workers died over one chunk; or what an actor raised.
        """
        queue = deque(_Chunk(start=start, items=items[start : start + size]) for start in range(0, len(items), size))
        left = len(items)
        while left:
            for member in self._members:
                while queue and member.opened and len(member.given) < _IN_FLIGHT:
                    chunk = queue.popleft()
                    member.given.append((chunk, give(member.actor, chunk.start, chunk.items, chunk.lost > 0)))
            awaited = {member.given[0][1]: member for member in self._members if member.given}
            ready, _ = ray.wait(list(awaited), timeout=_PATIENCE)
            wait()
            if not ready:
                continue
            member = awaited[ready[0]]
            try:
                result = result_of(ready[0])
            except ray.exceptions.RayActorError as error:
                self._replace(member, queue, error)
                continue
            chunk, _ = member.given.popleft()
            member.opened = True
            if chunk.items:
                took(chunk.start, chunk.items, result)
                left -= len(chunk.items)

    def _started(self, opening: _Chunk) -> _Member:
        """A new actor. It gets chunks when it has opened: a cluster may have no place for it until later, or never."""
        actor, opened = self._start()
        return _Member(actor, deque([(opening, opened)]))

    def _replace(self, member: _Member, queue: deque[_Chunk], error: Exception) -> None:
        """Puts what a dead worker had back in front, and another in its place."""
        chunks = [chunk for chunk, _ in member.given]
        at_fault = chunks[0]
        at_fault.lost += 1
        if at_fault.lost == _TRIES:
            raise CalotypeError(
                f"{_TRIES} workers died, one after the other, {self._over(at_fault)}; all that was done is kept. "
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
        first, more = self._name(chunk.items[0]), len(chunk.items) - 1
        return f"over {first} and the {more} after it" if more else f"over {first}"


def result_of(ref: Any) -> Any:
    """What an actor's method gave. Our own errors come as they were raised, without Ray's account of the way."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CalotypeError):
            raise error.cause from None
        raise


def machine() -> str:
    """What to call the worker that this is."""
    return f"worker on {socket.gethostname()}"


def chunk_size(items: int, workers: int, unit: int) -> int:
    """Small enough that all workers end at about the same time, and whole batches of `unit`."""
    size = -(-items // (workers * _CHUNKS))
    return max(1, min(_MOST, -(-size // unit) * unit))
