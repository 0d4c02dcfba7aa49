"""Handle signals that end a run: the current step finishes, and a checkpoint is saved. Needs no torch."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, Self

from calotype.progress import is_first_rank

__all__ = ["Interrupted", "StopRequest", "exit_status", "note_interrupted"]

_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Sent by Ctrl-C; by Slurm and torchrun; by a terminal that closes."""
_DEFAULTS: Final = (signal.SIG_DFL, signal.default_int_handler)
_NOTE: Final = "Interrupted: finishing the step, then saving a checkpoint. A second time ends at once, without it.\n"


class Interrupted(KeyboardInterrupt):
    """A signal has ended a run.

    Args:
        number: Number of the signal.
        step: Number of finished steps, where a checkpoint was saved.
        checkpoint: The checkpoint; None where the run ended at once.
        last: The last checkpoint before it, where it ended at once; None if there is none.
    """

    def __init__(self, number: int, *, step: int = 0, checkpoint: Path | None = None, last: Path | None = None) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.step = step
        self.checkpoint = checkpoint
        self.last = last


class StopRequest:
    """Whether a signal has requested the end of a run.

    Outside of `deferred` there is nothing to save, and a signal ends the run at once, as the second one always does.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """Number of the first signal; None before it."""
        self.checkpoints: Path | None = None
        """Folder of the run's checkpoints, once it is known."""
        self._deferred = False

    @property
    def asked(self) -> bool:
        """Whether a signal was received."""
        return self.number is not None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Record the first signal without raising; the caller checks `asked` between its steps."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @classmethod
    @contextmanager
    def from_signals(cls) -> Iterator[Self]:
        """Handle SIGINT, SIGTERM and SIGHUP, and restore the handlers afterwards.

        A signal that the program ignores or handles itself is left alone. Python allows handlers in the main thread
        only; in another thread none is set.
        """
        stop = cls()
        before = {}
        if threading.current_thread() is threading.main_thread():
            before = {one: handler for one in _SIGNALS if (handler := signal.getsignal(one)) in _DEFAULTS}
        try:
            for one in before:
                signal.signal(one, stop._came)
            yield stop
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _came(self, number: int, _: FrameType | None) -> None:
        first, self.number = self.number is None, self.number or number
        if not (first and self._deferred):
            there = [] if self.checkpoints is None else sorted(self.checkpoints.glob("step-*"))
            raise Interrupted(self.number, last=there[-1] if there else None)
        if is_first_rank():
            with suppress(OSError):
                line = "\n" if os.isatty(2) else ""  # below a progress bar
                os.write(2, f"{line}{_NOTE}".encode())  # `print` may be what was interrupted


def exit_status(error: KeyboardInterrupt) -> int:
    """Return the exit status of a command that a signal ended: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)


def note_interrupted(error: KeyboardInterrupt, arguments: Sequence[str]) -> str:
    """Return the message about a run that a signal ended: what is saved, and the command that continues.

    Args:
        error: The exception that ended the run.
        arguments: The arguments of its command.
    """
    begin = shlex.join(["calotype", *(one for one in arguments if one != "--resume")])
    if isinstance(error, Interrupted) and error.checkpoint is not None:
        return f"Interrupted after step {error.step}, saved in {error.checkpoint}. To continue: {begin} --resume"
    if isinstance(error, Interrupted) and error.last is not None:
        return f"Interrupted; the last checkpoint is {error.last}. To continue from it: {begin} --resume"
    return f"Interrupted before a checkpoint was saved. To begin anew: {begin}"
