"""Progress for whoever waits: a bar with count, rate and time left in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from calotype.terminal import console, say, visible

__all__ = ["Show", "Track", "counter", "silent", "track"]

Show = Callable[[int, int], None]
"""Called with (done, total): what every `progress` argument takes, and every `Track` gives."""


class Track(Protocol):
    """What `track` is, for those who are told by their caller whether and how to show progress."""

    def __call__(self, what: str, *, unit: str = "images") -> AbstractContextManager[Show]: ...


_PATIENCE = 1.0
"""Seconds of silence before anything is shown: short waits need no bar."""


@contextmanager
def track(what: str, *, unit: str = "images") -> Iterator[Show]:
    """Gives a function to call with (done, total). Shows on standard error.

    Args:
        what: What is being done, as the beginning of a line: "reading headers".
        unit: What is counted.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = console(error=True)
    start = time.monotonic()
    said = start

    if screen.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        with Progress(
            *columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=screen, transient=True
        ) as bar:
            task = bar.add_task(visible(what), total=None, visible=False, rate="")

            def show(done: int, total: int) -> None:
                spent = time.monotonic() - start
                rate = f"{_digits(done / spent)} {unit}/s" if spent else ""
                bar.update(task, completed=done, total=total, rate=rate, visible=spent > _PATIENCE)

            yield show
        return

    def tell(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < 10 and not (done == total and now - start > 10):
            return
        said = now
        rate = done / (now - start)
        left = (total - done) / rate if rate else float("inf")
        say(f"{what}: {done}/{total} {unit}, {_digits(rate)}/s, {left:.0f} s left", error=True)

    yield tell


def _digits(rate: float) -> str:
    """A rate with two digits at least: captions come at 0.25 a second, not at none."""
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2f}"


@contextmanager
def silent(what: str, *, unit: str = "images") -> Iterator[Show]:
    """A `Track` that shows nothing."""
    yield lambda done, total: None


def counter(show: Show | None, total: int) -> Callable[[int], None]:
    """A function to call with how many more are done, which calls `show` with how many are."""
    done = 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        if show is not None:
            show(done, total)

    return more
