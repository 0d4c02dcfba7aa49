"""Progress on standard error: a bar with count, rate and time left in a terminal, else a line every 10 seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from calotype.terminal import console, say, visible

__all__ = ["Show", "Track", "counter", "silent", "track"]

Show = Callable[[int, int], None]
"""Callback with (done, total): the type of every `progress` argument."""


class Track(Protocol):
    """The type of `track` and `silent`, for functions whose caller chooses how to show progress."""

    def __call__(self, what: str, *, unit: str = "images") -> AbstractContextManager[Show]: ...


_PATIENCE = 1.0
"""Seconds before the bar is shown: short waits need none."""


@contextmanager
def track(what: str, *, unit: str = "images") -> Iterator[Show]:
    """Show progress on standard error; the context's value is a function to call with (done, total).

    Args:
        what: The activity, at the start of the line: "reading headers".
        unit: Name of the counted items.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = console(error=True)
    start = time.monotonic()
    reported = start

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

    def report(done: int, total: int) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported < 10 and not (done == total and now - start > 10):
            return
        reported = now
        rate = done / (now - start)
        left = (total - done) / rate if rate else float("inf")
        say(f"{what}: {done}/{total} {unit}, {_digits(rate)}/s, {left:.0f} s left", error=True)

    yield report


def _digits(rate: float) -> str:
    """Format a rate with at least two digits: captions may come at 0.25 per second."""
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2f}"


@contextmanager
def silent(what: str, *, unit: str = "images") -> Iterator[Show]:
    """A `Track` that shows nothing."""
    yield lambda done, total: None


def counter(show: Show | None, total: int) -> Callable[[int], None]:
    """Return a function that adds a count of finished items and calls `show` with their sum."""
    done = 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        if show is not None:
            show(done, total)

    return more
