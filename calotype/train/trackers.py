"""The run's trackers, those of accelerate. A failing tracker never ends the training."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from accelerate import Accelerator

from calotype.errors import ConfigError
from calotype.ledger import LedgerEntry
from calotype.train.ranks import decided_once

__all__ = ["Trackers", "quiet_writers"]

_PATIENCE: Final = 3
"""Failures in a row after which a tracker is removed: each may wait a minute for a server."""


class Trackers:
    """Logs to each tracker; its first failure is reported, and after three in a row it is removed.

    Args:
        accelerator: From `make_accelerator`.
        options: The run's options, as strings.
        note: Called with each failure, on the process where it happens.

    Raises:
        ConfigError: A tracker can't start.
    """

    def __init__(
        self, accelerator: Accelerator, options: Mapping[str, str], *, note: Callable[[LedgerEntry], None]
    ) -> None:
        self._accelerator = accelerator
        self._note = note
        self._failures: Counter[str] = Counter()
        decided_once(accelerator, lambda: self._start(dict(options)))

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Log numbers of a step."""
        for tracker in list(self._accelerator.trackers):
            try:
                tracker.log(dict(values), step=step)
                self._failures[tracker.name] = 0
            except Exception as error:
                self._failed(tracker, step, error)

    def finish(self) -> None:
        """Finish all trackers."""
        for tracker in self._accelerator.trackers:
            try:
                tracker.finish()
            except Exception as error:
                self._note(_entry(tracker.name, "the end", error, "what it had not written yet is lost"))
        self._accelerator.trackers.clear()

    def _start(self, options: dict[str, str]) -> None:
        try:
            self._accelerator.init_trackers("calotype", config=options)
        except Exception as error:
            raise ConfigError(
                f"train.trackers: one of {', '.join(map(str, self._accelerator.log_with))} can't start: {error}; fix "
                "that, or set train.trackers: []"
            ) from error

    def _failed(self, tracker: Any, step: int, error: Exception) -> None:
        self._failures[tracker.name] += 1
        count = self._failures[tracker.name]
        if count == 1:
            self._note(_entry(tracker.name, f"step {step}", error, "training continues"))
        elif count == _PATIENCE:
            self._note(_entry(tracker.name, f"step {step}", error, f"{count} times in a row: it is left out"))
            self._accelerator.trackers.remove(tracker)
            with suppress(Exception):
                tracker.finish()


@contextmanager
def quiet_writers() -> Iterator[None]:
    """Suppress tracebacks of TensorBoard's writer thread; the next call raises its error."""
    before = threading.excepthook

    def hook(arguments: Any) -> None:
        if not type(arguments.thread).__module__.startswith("tensorboard."):
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _entry(name: str, when: str, error: Exception, then: str) -> LedgerEntry:
    why = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
    return LedgerEntry(kind="tracker_failed", id=name, reason=f"{when}: {why}; {then}")
