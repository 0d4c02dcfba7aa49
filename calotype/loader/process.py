"""The loader process: a `Producer` on the far end of a socket.

Why a process, and one only: Python threads beside a training loop that launches many small operations slow it down
(they share the interpreter's lock); worker processes that each hold a batch copy it through a pipe. One process of N
threads that writes into shared slots does neither.

It is started as a plain `python -c`, not through `multiprocessing`: so the trainer's script needs no
`if __name__ == "__main__"`, and lambdas or classes of a notebook travel by value (cloudpickle).

Messages, pickled, trainer to loader: `int` gives back the slot of that number, `Seek` moves the stream.
Loader to trainer: `Ready`, followed by a file descriptor when its slot is new to the trainer, or `Failed`.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any

import cloudpickle
import torch
from numpy.typing import NDArray

from calotype.ledger import LedgerEntry
from calotype.loader.plan import Cursor, Plan
from calotype.loader.produce import OnError, Preparable, Producer
from calotype.loader.slots import LEASES, Slot
from calotype.types import Batch

__all__ = ["Failed", "Ready", "Seek", "Setup", "launch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the loader process starts from."""

    dataset: Preparable
    plan: Plan
    threads: int
    prefetch: int
    on_error: OnError
    finish: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Seek:
    """Go on from `cursor`. Batches that were under way belong to an older generation, and are dropped."""

    generation: int
    cursor: Cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A batch is in a slot."""

    generation: int
    cursor: Cursor
    slot: int
    size: int
    fresh: bool
    tensors: dict[str, tuple[torch.dtype, tuple[int, ...], int, int]]
    """key → dtype, shape, offset and bytes in the slot."""
    small: dict[str, NDArray[Any]]
    """Tensors made of a value a sample, such as numbers: by value, since torch would send a descriptor for each."""
    rest: Batch
    notes: list[LedgerEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The dataset raised something that ends the epoch."""

    generation: int
    error: BaseException
    traceback: str


def launch(setup: Setup, far_end: int) -> subprocess.Popen[bytes]:
    """Starts the process on its end of a socket pair. The caller sends it `Setup`, through cloudpickle."""
    # glibc gives blocks of megabytes back to the system at once, and every picture would fault its pages in anew.
    keep = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
    code = f"import sys; sys.path[:] = {sys.path!r}; from calotype.loader.process import main; main({far_end})"
    return subprocess.Popen(
        [sys.executable, "-c", code], pass_fds=[far_end], stdin=subprocess.DEVNULL, env=keep | os.environ
    )


def main(fd: int) -> None:
    """Runs in the loader process until the trainer closes the socket or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle; it closes the socket
    torch.set_num_threads(1)  # the threads are ours: one picture each
    connection = Connection(fd)
    try:
        setup: Setup = cloudpickle.loads(connection.recv_bytes())
    except EOFError:
        return
    except Exception as error:
        connection.send(_failed(-1, error))
        return
    gc.freeze()  # the dataset stays for good: no collection need look through it
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    _Server(setup, connection, inbox).run()


def _listen(connection: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    """Takes in messages at once; leaves with the trainer.

    The socket closes when the trainer goes, unless a process that it forked holds it open too: then
    this process's parent has changed.
    """
    parent = os.getppid()
    try:
        while True:
            if connection.poll(2.0):
                inbox.put(connection.recv())
            elif os.getppid() != parent:
                break
    except (EOFError, OSError):
        pass
    os._exit(0)


class _Server:
    def __init__(self, setup: Setup, connection: Connection, inbox: queue.SimpleQueue[Any]) -> None:
        self._connection, self._inbox = connection, inbox
        self._slots = [Slot(number) for number in range(setup.prefetch + LEASES)]
        self._free = list(self._slots)
        self._producer = Producer(
            setup.dataset,
            setup.plan,
            threads=setup.threads,
            on_error=setup.on_error,
            finish=setup.finish,
            on_ready=lambda: inbox.put(None),
        )
        self._generation: int | None = None

    def run(self) -> None:
        """Begins a step whenever a slot is free, sends one whenever it is made, and waits for either in between."""
        while True:
            try:
                while self._generation is not None and self._free:
                    self._producer.submit(self._free.pop())
                while self._generation is not None and self._producer.ready():
                    self._send_next()
            except ConnectionError:  # the trainer closed the loader
                os._exit(0)
            except Exception as error:
                assert self._generation is not None
                self._connection.send(_failed(self._generation, error))
                self._stop()
            self._handle(self._inbox.get())

    def _handle(self, message: int | Seek | None) -> None:
        """A slot that comes back, a move, or (None) word from the producer that a step was made."""
        if isinstance(message, int):
            self._free.append(self._slots[message])
        elif message is not None:
            self._stop(message.cursor)
            self._generation = message.generation

    def _stop(self, cursor: Cursor | None = None) -> None:
        for memory in self._producer.seek(cursor or Cursor()):
            assert isinstance(memory, Slot)
            self._free.append(memory)
        self._generation = None

    def _send_next(self) -> None:
        assert self._generation is not None
        made = self._producer.take()
        slot = made.memory
        assert isinstance(slot, Slot)
        tensors = {
            key: (tensor.dtype, tuple(tensor.shape), offset, tensor.nbytes)
            for (key, tensor), offset in zip(made.tensors.items(), slot.offsets, strict=True)
        }
        small = {key: value.numpy() for key, value in made.rest.items() if isinstance(value, torch.Tensor)}
        self._connection.send(
            Ready(
                generation=self._generation,
                cursor=made.cursor,
                slot=slot.number,
                size=slot.size,
                fresh=slot.fresh,
                tensors=tensors,
                small=small,
                rest={key: value for key, value in made.rest.items() if key not in small},
                notes=made.notes,
            )
        )
        if slot.fresh:
            send_handle(self._connection, slot.fd, os.getppid())
            slot.fresh = False


def _failed(generation: int, error: BaseException) -> Failed:
    text = "".join(traceback.format_exception(error))
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return Failed(generation=generation, error=error, traceback=text)
