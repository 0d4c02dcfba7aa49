"""Ctrl-C and what else asks a run to end: the step in hand finishes, a checkpoint is saved. Needs no torch."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, Self

__all__ = ["Interrupted", "StopRequest", "exit_status", "note_interrupted"]

_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Of a person at the terminal, of Slurm and torchrun, and of a terminal that is closed."""
_DEFAULTS: Final = (signal.SIG_DFL, signal.default_int_handler)
_HEARD: Final = "Interrupted: finishing the step, then saving a checkpoint. A second time ends at once.\n"


class Interrupted(KeyboardInterrupt):
    """A signal has ended a run.

    Args:
        number: The signal's.
        step: Steps that were done, where a checkpoint was saved for the signal.
        checkpoint: That one; None where the run ended at once.
    """

    def __init__(self, number: int, *, step: int = 0, checkpoint: Path | None = None) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.step = step
        self.checkpoint = checkpoint


class StopRequest:
    """Whether a signal has asked the run to end.

    Until `defer` is called there is nothing to save, and a signal ends the run at once, as the second one always does.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that came; None where none did."""
        self._deferred = False

    @property
    def asked(self) -> bool:
        """Whether one came."""
        return self.number is not None

    def defer(self) -> None:
        """From now on the first signal is noted only: the caller looks at `asked` between its steps."""
        self._deferred = True

    @classmethod
    @contextmanager
    def from_signals(cls) -> Iterator[Self]:
        """Listen to SIGINT, SIGTERM and SIGHUP, and put the handlers back afterwards.

        A signal that the program ignores or handles itself stays the program's. Python allows handlers in the main
        thread only: in another one none is set.
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
            raise Interrupted(self.number)
        if os.environ.get("RANK", "0") == "0":  # of torchrun's: one of them speaks
            with suppress(OSError):
                os.write(2, _HEARD.encode())  # `print` may be what was interrupted


def exit_status(error: KeyboardInterrupt) -> int:
    """The status of a command that a signal has ended: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)


def note_interrupted(error: KeyboardInterrupt, command: str) -> str:
    """What is said of a run that a signal has ended.

    Args:
        error: What ended it.
        command: The one that continues it.
    """
    if isinstance(error, Interrupted) and error.checkpoint is not None:
        return f"Interrupted after step {error.step}, saved in {error.checkpoint}. To continue: {command}"
    return f"Interrupted; nothing was saved for it. To continue from the last checkpoint, if there is one: {command}"
