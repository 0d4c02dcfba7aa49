"""The loader process: runs a `Producer` and sends its batches to the trainer over a socket.

Why one process: Python threads next to a training loop that launches many small operations slow it down (they share the
GIL), and several worker processes copy each batch through a pipe. One process of N threads that writes into shared
memory does neither.

It is started as a plain `python -c`, not by `multiprocessing`: the trainer's script needs no
`if __name__ == "__main__"`, and lambdas and classes of a notebook are pickled by value (cloudpickle).

Messages are pickled:

========== ================= ==========================================================================
direction  message           meaning
========== ================= ==========================================================================
to loader  `int`             the slot of this number is free again
to loader  `Seek`            continue from another position
to trainer `Opened`          the process has started, and waits for a `Seek`
to trainer `Ready`           a batch is in a slot; a file descriptor follows if the slot's memory is new
to trainer `Failed`          the dataset raised an error
========== ================= ==========================================================================

Messages are small, and little code runs for each. Copying a batch of megabytes evicts Python's code and data from the
processor's caches: each line takes several times as long here as in a tight loop.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any, NamedTuple

import cloudpickle
import torch
from numpy.typing import NDArray

from calotype.data.sample_source import SampleSource
from calotype.errors import LoaderError
from calotype.ledger import LedgerEntry
from calotype.loader.plan import Cursor, Plan
from calotype.loader.produce import Made, OnError, Producer, Share
from calotype.loader.slots import LEASES, Place, Slot, unnamed_file
from calotype.types import Batch

__all__ = ["WAY_OUT", "Failed", "Opened", "Ready", "Seek", "Setup", "launch", "packed"]


_OF_THE_TRAINER = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}
"""The trainer handles these, sent to the whole process group (Ctrl-C, Slurm, a closed terminal); it then closes the
socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Everything the loader process needs to start. Fields as for `Loader` and `Producer`."""

    dataset: SampleSource
    plan: Plan
    threads: int
    prefetch: int
    on_error: OnError
    finish: bool


class Seek(NamedTuple):
    """Continue from `cursor`. Batches in progress belong to an older generation, and are dropped."""

    generation: int
    cursor: Cursor


class Opened(NamedTuple):
    """The loader process has started: it takes about a second, most of it to import torch."""


class Ready(NamedTuple):
    """A batch is in a slot."""

    generation: int
    at: tuple[int, int]
    """(epoch, step)"""
    slot: int
    fresh: int
    """Size of the slot's memory in bytes if the trainer has not mapped it yet, else 0."""
    places: dict[str, Place] | None
    """Location of each tensor in the slot; None if the same as for the slot's previous batch."""
    small: dict[str, NDArray[Any]]
    """Tensors of one number per sample, pickled as arrays: torch would send a file descriptor for each."""
    rest: Batch
    """All other values."""
    keys: tuple[str, ...]
    """All keys of the batch, in their order."""
    notes: list[LedgerEntry]


class Failed(NamedTuple):
    """The dataset raised an error, which ends the epoch. Generation -1: the process could not start."""

    generation: int
    error: BaseException
    traceback: str


WAY_OUT = "Loader(..., in_process=True) prepares batches in threads of this process instead"


def packed(message: object) -> bytes:
    """Pickle a message without tensors for `connection.recv`. `connection.send` is slower: it supports tensors."""
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


def launch(far_end: int, setup: bytes) -> subprocess.Popen[bytes]:
    """Start the loader process.

    Args:
        far_end: File descriptor of its end of a socket pair.
        setup: The pickled `Setup`. In a file, not sent: the process reads it only once it has started.
    """
    # By default, glibc returns freed blocks of megabytes to the system at once: every image would cause page faults.
    keep = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
    with os.fdopen(unnamed_file("calotype-setup"), "r+b") as file:
        file.write(setup)
        file.seek(0)
        fds = [far_end, file.fileno()]
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from calotype.loader.process import main; main({fds[0]}, {fds[1]})"
        )
        # Blocked, and inherited by the process, until `main` ignores them: none interrupts its imports.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_TRAINER)
        try:
            return subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=fds, stdin=subprocess.DEVNULL, env=keep | os.environ
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main(fd: int, setup_fd: int) -> None:
    """Run the loader process until the trainer closes the socket or exits.

    Args:
        fd: File descriptor of this end of the socket pair.
        setup_fd: File descriptor of the file with the pickled `Setup`.
    """
    for one in _OF_THE_TRAINER:
        signal.signal(one, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_TRAINER)
    torch.set_num_threads(1)  # each of our threads works on an image of its own
    connection = Connection(fd)
    try:
        with os.fdopen(setup_fd, "rb") as file:
            setup: Setup = cloudpickle.load(file)
    except Exception as error:
        with suppress(ConnectionError):
            connection.send_bytes(packed(_failed(-1, error)))
        return
    gc.freeze()  # the dataset lives as long as the process: exclude it from garbage collection
    server = _Server(setup, connection)
    with suppress(ConnectionError):  # the trainer has exited: see `_watch`
        connection.send_bytes(packed(Opened()))
    for number in range(setup.threads):
        threading.Thread(target=server.work, name=f"calotype_{number}", daemon=True).start()
    _watch(connection)


def _watch(connection: Connection) -> None:
    """Exit the process as soon as the trainer has exited, even if threads are busy.

    The socket is hung up when the trainer exits. If a fork of the trainer still has it open, the parent process has
    changed instead.
    """
    parent = os.getppid()
    hung_up = select.poll()
    hung_up.register(connection.fileno(), getattr(select, "POLLRDHUP", select.POLLHUP))
    while not hung_up.poll(2000) and os.getppid() == parent:
        pass
    os._exit(0)


class _Server:
    """Runs the loader's threads. All run the same loop: receive messages, start steps, call a share, send batches.

    There is no coordinating thread: it would wake up for every batch, take the GIL from threads that read, and make the
    system move them between cores.

    Args:
        setup: Dataset, plan and options.
        connection: Connection to the trainer.
    """

    def __init__(self, setup: Setup, connection: Connection) -> None:
        self._connection = connection
        self._slots = [Slot(number) for number in range(setup.prefetch + LEASES)]
        self._free = list(self._slots)
        self._shares: deque[Share] = deque()
        self._producer = Producer(
            setup.dataset,
            setup.plan,
            threads=setup.threads,
            on_error=setup.on_error,
            finish=setup.finish,
            on_ready=self._send_ready,
        )
        self._generation: int | None = None
        self._turn = threading.Lock()
        """Held by the thread that receives messages and starts steps."""
        self._sending = threading.Lock()
        """Held by the thread that sends, or changes what is sent: guards `_generation`."""
        self._come = select.poll()
        self._come.register(connection.fileno(), select.POLLIN)

    def work(self) -> None:
        """Run the loop of one thread, until the trainer exits."""
        try:
            while True:
                self._next()()
        except (EOFError, ConnectionError):  # the trainer has exited
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def _next(self) -> Share:
        """Return the next share. If there is none, one thread waits for messages, and the others for that thread."""
        while True:
            # Do not wait for the lock if there are shares to call.
            if self._turn.acquire(blocking=not self._shares):
                try:
                    while self._come.poll(None if not self._begin() else 0):
                        self._handle(self._connection.recv())
                finally:
                    self._turn.release()
            with suppress(IndexError):
                return self._shares.popleft()

    def _begin(self) -> bool:
        """Start a step for each free slot; return whether there are shares to call."""
        while self._generation is not None and self._free:
            self._shares += self._producer.submit(self._free.pop())
        return bool(self._shares)

    def _handle(self, message: int | Seek) -> None:
        """Handle a message: a slot that is free again, or a `Seek`."""
        if isinstance(message, int):
            self._free.append(self._slots[message])
        else:
            with self._sending:
                self._shares.clear()
                for memory in self._producer.seek(message.cursor):
                    assert isinstance(memory, Slot)
                    self._free.append(memory)
                self._generation = message.generation

    def _send_ready(self) -> None:
        """Send the steps that are complete, in order."""
        with self._sending:
            while self._generation is not None and self._producer.ready():
                try:
                    made = self._producer.take()
                except Exception as error:
                    self._fail(error)
                else:
                    self._send(self._generation, made)

    def _fail(self, error: Exception) -> None:
        """Send an error, and nothing after it. The next `Seek` discards what has begun: a step may begin right now."""
        if self._generation is not None:
            self._connection.send_bytes(packed(_failed(self._generation, error)))
            self._generation = None

    def _send(self, generation: int, made: Made) -> None:
        slot = made.memory
        assert isinstance(slot, Slot)
        small = {key: value.numpy() for key, value in made.rest.items() if isinstance(value, torch.Tensor)}
        ready = Ready(
            generation=generation,
            at=made.at,
            slot=slot.number,
            fresh=slot.size if slot.fresh else 0,
            places=slot.places if slot.moved else None,
            small=small,
            rest={key: value for key, value in made.rest.items() if key not in small} if small else made.rest,
            keys=made.keys,
            notes=made.notes,
        )
        try:
            message = packed(ready)
        except Exception as error:
            self._free.append(slot)
            keys = ", ".join(map(repr, ready.rest))
            self._fail(
                LoaderError(f"a batch can't be sent from the loader process: {error} (one of {keys}); {WAY_OUT}")
            )
            return
        slot.fresh = slot.moved = False  # before sending: after it, the slot may be returned at any time
        self._connection.send_bytes(message)
        if ready.fresh:
            send_handle(self._connection, slot.fd, os.getppid())


def _failed(generation: int, error: BaseException) -> Failed:
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return Failed(generation=generation, error=error, traceback=text)
