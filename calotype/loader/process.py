"""The loader process: a `Producer` on the far end of a socket.

Why a process, and one only: Python threads beside a training loop that launches many small operations slow it down
(they share the interpreter's lock); worker processes that each hold a batch copy it through a pipe. One process of N
threads that writes into shared slots does neither.

It is started as a plain `python -c`, not through `multiprocessing`: so the trainer's script needs no
`if __name__ == "__main__"`, and lambdas or classes of a notebook travel by value (cloudpickle).

Messages, pickled, trainer to loader: `int` gives back the slot of that number, `Seek` moves the stream.
Loader to trainer: `Ready`, followed by a file descriptor when its slot is new to the trainer, or `Failed`.
There is little in them, and little code around them: where a batch is megabytes that are copied, the processor's caches
hold nothing of Python in between, and each line takes several times as long as in a loop of its own.
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
from calotype.loader.slots import LEASES, Place, Slot
from calotype.types import Batch

__all__ = ["WAY_OUT", "Failed", "Ready", "Seek", "Setup", "launch", "packed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the loader process starts from."""

    dataset: SampleSource
    plan: Plan
    threads: int
    prefetch: int
    on_error: OnError
    finish: bool


class Seek(NamedTuple):
    """Go on from `cursor`. Batches that were under way belong to an older generation, and are dropped."""

    generation: int
    cursor: Cursor


class Ready(NamedTuple):
    """A batch is in a slot."""

    generation: int
    at: tuple[int, int]
    """(epoch, step)"""
    slot: int
    fresh: int
    """Bytes of the slot's memory when it is new to the trainer, else 0."""
    places: dict[str, Place] | None
    """Where the tensors are; None when that is as for the slot's batch before."""
    small: dict[str, NDArray[Any]]
    """Tensors made of a value a sample, such as numbers: by value, since torch would send a descriptor for each."""
    rest: Batch
    notes: list[LedgerEntry]


class Failed(NamedTuple):
    """The dataset raised something that ends the epoch."""

    generation: int
    error: BaseException
    traceback: str


WAY_OUT = "Loader(..., in_process=True) prepares batches in threads of this process instead"


def packed(message: object) -> bytes:
    """A message without tensors, as `connection.recv` takes it; `connection.send` looks for some, which takes long."""
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


def launch(setup: Setup, far_end: int) -> subprocess.Popen[bytes]:
    """Starts the process on its end of a socket pair. The caller sends it `Setup`, through cloudpickle."""
    # glibc gives blocks of megabytes back to the system at once, and every image would fault its pages in anew.
    keep = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
    code = f"import sys; sys.path[:] = {sys.path!r}; from calotype.loader.process import main; main({far_end})"
    return subprocess.Popen(
        [sys.executable, "-c", code], pass_fds=[far_end], stdin=subprocess.DEVNULL, env=keep | os.environ
    )


def main(fd: int) -> None:
    """Runs in the loader process until the trainer closes the socket or is gone."""
    # Ctrl-C is the trainer's to handle, as are Slurm's and a closed terminal's signal to all: it closes the socket.
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    torch.set_num_threads(1)  # the threads are ours: one image each
    connection = Connection(fd)
    try:
        setup: Setup = cloudpickle.loads(connection.recv_bytes())
    except EOFError:
        return
    except Exception as error:
        connection.send_bytes(packed(_failed(-1, error)))
        return
    gc.freeze()  # the dataset stays for good: no collection need look through it
    server = _Server(setup, connection)
    for number in range(setup.threads):
        threading.Thread(target=server.work, name=f"calotype_{number}", daemon=True).start()
    _watch(connection)


def _watch(connection: Connection) -> None:
    """Leaves with the trainer, whatever the threads are about.

    The socket is hung up when the trainer goes, unless a process that it forked holds it open too: then this process's
    parent has changed.
    """
    parent = os.getppid()
    hung_up = select.poll()
    hung_up.register(connection.fileno(), getattr(select, "POLLRDHUP", select.POLLHUP))
    while not hung_up.poll(2000) and os.getppid() == parent:
        pass
    os._exit(0)


class _Server:
    """Threads that are all alike: each listens, begins steps, does its share of one, and sends what it completed.

    There is no thread that tells the others what to do. It would have to wake up for every batch, take the
    interpreter's lock from those that read, and make the system move them from core to core.
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
        """Of who listens and begins steps."""
        self._sending = threading.Lock()
        """Of who sends, and of what decides what is sent."""
        self._come = select.poll()
        self._come.register(connection.fileno(), select.POLLIN)

    def work(self) -> None:
        """What each thread does, for good."""
        try:
            while True:
                self._next()()
        except (EOFError, ConnectionError):  # the trainer is gone
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def _next(self) -> Share:
        """The next share of a step. Where there is none, one thread listens, and the others wait for it."""
        while True:
            # With shares at hand, nobody waits for another to say what comes after them.
            if self._turn.acquire(blocking=not self._shares):
                try:
                    while self._come.poll(None if not self._begin() else 0):
                        self._handle(self._connection.recv())
                finally:
                    self._turn.release()
            with suppress(IndexError):
                return self._shares.popleft()

    def _begin(self) -> bool:
        """Begins a step for each free slot; whether there is a share to be done."""
        while self._generation is not None and self._free:
            self._shares += self._producer.submit(self._free.pop())
        return bool(self._shares)

    def _handle(self, message: int | Seek) -> None:
        """A slot that comes back, or a move."""
        if isinstance(message, int):
            self._free.append(self._slots[message])
        else:
            with self._sending:
                self._stop(message.cursor)
                self._generation = message.generation

    def _send_ready(self) -> None:
        """Sends the steps that have been made, in their order."""
        with self._sending:
            while self._generation is not None and self._producer.ready():
                try:
                    made = self._producer.take()
                except Exception as error:
                    self._fail(error)
                else:
                    self._send(self._generation, made)

    def _fail(self, error: Exception) -> None:
        if self._generation is not None:
            self._connection.send_bytes(packed(_failed(self._generation, error)))
            self._stop(Cursor())

    def _stop(self, cursor: Cursor) -> None:
        self._generation = None
        self._shares.clear()
        for memory in self._producer.seek(cursor):
            assert isinstance(memory, Slot)
            self._free.append(memory)

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
        slot.fresh = slot.moved = False  # before it is sent: from then on it may come back at any time
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
