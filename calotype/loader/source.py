"""`Source`: a stream of batches for a `Loader`, from threads of this process or from the loader process."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import NamedTuple, Protocol, TypeVar

import cloudpickle
import numpy as np
import torch

from calotype.core.daemon_pool import DaemonPool
from calotype.errors import LoaderError
from calotype.ledger import LedgerEntry
from calotype.loader.batch_builder import HeapMemory
from calotype.loader.plan import Cursor
from calotype.loader.process import WAY_OUT, Failed, Opened, Ready, Seek, Setup, launch, packed
from calotype.loader.produce import Producer
from calotype.loader.slots import LEASES, Place
from calotype.types import Batch

_T = TypeVar("_T")

__all__ = ["Delivered", "ProcessSource", "Source", "ThreadSource"]

_AT_EXIT = 5.0
"""Maximum seconds to wait for samples in progress."""
_SMALL = 1 << 16
"""Maximum bytes of a tensor that is copied out of its slot: it does not keep the slot in use."""


class Delivered(NamedTuple):
    """A batch in this process's memory."""

    at: tuple[int, int]
    """(epoch, step)"""
    batch: Batch
    notes: list[LedgerEntry]


class Source(Protocol):
    """A seekable stream of batches. It belongs to one process: in a fork, its methods raise."""

    def seek(self, cursor: Cursor) -> None:
        """Move to the batch at `cursor`."""
        ...

    def next(self) -> Delivered:
        """Return the next batch; wait for it if necessary."""
        ...

    def ready(self) -> bool:
        """Return whether `next` would not wait."""
        ...

    def release(self) -> None:
        """Return the memory of batches that are no longer referenced."""
        ...

    def close(self) -> None: ...


class ThreadSource:
    """Prepares batches in threads of this process. For data already in memory: else it slows the training loop down.

    The threads never delay the end of the program.

    Args:
        setup: Dataset, plan and options.
    """

    def __init__(self, setup: Setup) -> None:
        self._producer = Producer(
            setup.dataset, setup.plan, threads=setup.threads, on_error=setup.on_error, finish=setup.finish
        )
        self._pool = DaemonPool(setup.threads, "calotype")
        self._left_one = setup.threads == 1
        self._close = weakref.finalize(self, _give_up, self._producer, os.getpid())
        self._ahead = setup.prefetch
        self._owner = os.getpid()

    @property
    def begun(self) -> int:
        """Number of batches begun and not yet returned."""
        return len(self._producer)

    @property
    def cursor(self) -> Cursor:
        """Position of the batch that `next` returns."""
        return self._producer.oldest

    def stop(self) -> Cursor:
        """Begin no further batches; return the position of the first one that was not begun."""
        self._ahead = 0
        return self._producer.upcoming

    def leave_one(self) -> None:
        """Continue with one thread; what the others have begun is completed."""
        if not self._left_one:
            self._left_one = True
            self._pool.shutdown(wait=False)
            self._pool = DaemonPool(1, "calotype")

    def seek(self, cursor: Cursor) -> None:
        _check_owner(self._owner)
        self._producer.seek(cursor)

    def next(self) -> Delivered:
        _check_owner(self._owner)
        self._fill()
        made = self._producer.take()
        self._fill()
        return Delivered(made.at, dict.fromkeys(made.keys) | made.tensors | made.rest, made.notes)

    def ready(self) -> bool:
        return self._producer.ready()

    def release(self) -> None:
        pass

    def close(self) -> None:
        self._close()
        if os.getpid() == self._owner:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _fill(self) -> None:
        while len(self._producer) < self._ahead:
            for share in self._producer.submit(HeapMemory()):
                self._pool.submit(share)


def _give_up(producer: Producer, owner: int) -> None:
    """Wait for the samples that threads are preparing, and prepare no others.

    At the end of the program, a thread in the middle of torch's code may crash it.
    """
    if os.getpid() == owner:  # a fork has none of the threads
        producer.give_up(timeout=_AT_EXIT)


class ProcessSource:
    """Receives batches from a loader process, which it starts.

    The large tensors of a batch are views of its slot, which is returned when the last of them is deleted. While the
    caller holds two batches or more, further ones are copied, so that the loader process never runs out of slots. (A
    loop holds one batch while it requests the next.)

    Args:
        setup: Dataset, plan and options.
        on_map: Called with the memory of each new slot, uint8 (size,), such as to pin it.
    """

    def __init__(self, setup: Setup, *, on_map: Callable[[torch.Tensor], None] | None = None) -> None:
        try:
            pickled = cloudpickle.dumps(setup)
        except Exception as error:
            raise LoaderError(f"the dataset can't be sent to the loader process: {error}; {WAY_OUT}") from error
        near, far = socket.socketpair()
        with far:
            self._process = launch(far.fileno(), pickled)
        self._connection = Connection(near.detach())
        self._close = weakref.finalize(self, _shut, self._connection, self._process)
        self._on_map = on_map
        self._maps: dict[int, mmap.mmap] = {}
        """Memory of each slot, by its number."""
        self._released: deque[int] = deque()
        """Slots to return to the loader process."""
        self._places: dict[int, dict[str, Place]] = {}
        """Tensors of the last batch of each slot."""
        self._leased: dict[int, weakref.ref[object]] = {}
        """Slots in use by views of a batch: number → reference to the memory that the views share."""
        self._generation = 0
        """Number of seeks: batches from before the last one are dropped."""
        self._opened = False
        self._owner = os.getpid()
        _sources.add(self)

    @property
    def pid(self) -> int:
        return self._process.pid

    def seek(self, cursor: Cursor) -> None:
        self._generation += 1
        self._guard(partial(self._connection.send_bytes, packed(Seek(self._generation, cursor))))

    def opened(self) -> bool:
        """Return whether the process has started; never wait for it.

        Raises:
            Exception: It could not start.
        """
        while not self._opened and self.ready():
            self._receive()
        return self._opened

    def next(self) -> Delivered:
        while True:
            self.release()
            if (message := self._receive()) is None:
                continue
            if message.fresh:
                self._map(message)
            if message.places is not None:
                self._places[message.slot] = message.places
            # A batch from before the last seek is dropped, and its slot returned.
            if message.generation == self._generation:
                return Delivered(message.at, self._lease(message), message.notes)
            self._released.append(message.slot)

    def _receive(self) -> Ready | None:
        """Wait for the next message; return a batch, None for any other message, and raise the process's error."""
        message = self._guard(self._connection.recv)
        if isinstance(message, Opened):
            self._opened = True
            return None
        if isinstance(message, Failed):
            if message.generation not in (self._generation, -1):
                return None
            message.error.add_note(f"\nIn the loader process:\n{message.traceback}")
            raise message.error
        assert isinstance(message, Ready)
        return message

    def ready(self) -> bool:
        return bool(self._guard(self._connection.poll))

    def release(self) -> None:
        while self._released:
            slot = self._released.popleft()
            self._leased.pop(slot, None)
            self._guard(partial(self._connection.send_bytes, packed(slot)))

    def close(self) -> None:
        self._close()

    def disown(self) -> None:
        """Detach from the loader process in a fork of the trainer, without a message to it: it is the trainer's."""
        self._close.detach()
        self._connection.close()
        self._process.poll()  # it is no child of this process: marks the Popen as finished, so nothing waits for it

    def _map(self, message: Ready) -> None:
        """Receive the file descriptor of a slot's new memory, and map it."""
        fd = self._guard(lambda: recv_handle(self._connection))
        try:
            memory = mmap.mmap(fd, message.fresh)
        finally:
            os.close(fd)
        self._maps[message.slot] = memory
        if self._on_map is not None:
            self._on_map(torch.from_numpy(np.frombuffer(memory, dtype=np.uint8)))

    def _lease(self, message: Ready) -> Batch:
        """Return the batch in a slot, as views or copies; the slot is in use until the last view is deleted."""
        slot = message.slot
        hoarding = len(self._leased) >= LEASES
        batch: Batch = dict.fromkeys(message.keys)
        if places := self._places.get(slot):
            whole = np.frombuffer(self._maps[slot], dtype=np.uint8)
            for key, place in places.items():
                batch[key] = place.copied(whole) if hoarding or place.nbytes <= _SMALL else place.over(whole)
            # `whole` lives as long as any view of it. The callback may run in the middle of any code, so it only queues
            # the slot; `release` sends it.
            self._leased[slot] = weakref.ref(whole, partial(_note, self._released, slot))
        else:
            self._released.append(slot)
        if message.small:
            batch |= {key: torch.from_numpy(value) for key, value in message.small.items()}
        return batch | message.rest

    def _guard(self, talk: Callable[[], _T]) -> _T:
        """Call a function that communicates with the loader process; if that died, raise an error with its status."""
        _check_owner(self._owner)
        try:
            return talk()
        except (EOFError, ConnectionError, BrokenPipeError, OSError) as error:
            closed = self._connection.closed
            self.close()
            if closed:
                raise LoaderError("the loader is closed") from error
            code = self._process.returncode
            how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
            hint = "; signal 9 is most often the system running out of memory" if code == -9 else ""
            raise LoaderError(
                f"the loader process died ({how}){hint}. See standard error for its messages. "
                "state_dict() still holds the position: a new Loader resumes from there"
            ) from error


_sources: weakref.WeakSet[ProcessSource] = weakref.WeakSet()


def _disown_all() -> None:
    for source in list(_sources):
        source.disown()
    _sources.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)


def _check_owner(owner: int) -> None:
    if os.getpid() != owner:
        raise LoaderError(
            f"this loader gives its batches to process {owner}, and process {os.getpid()} is a fork of it: make a "
            "Loader of its own in the forked process, or fork before the first batch"
        )


def _note(released: deque[int], slot: int, _: object) -> None:
    released.append(slot)


def _shut(connection: Connection, process: subprocess.Popen[bytes]) -> None:
    connection.close()  # the loader process then exits
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
