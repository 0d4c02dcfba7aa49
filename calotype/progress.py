"""Progress on standard error: count, rate, time left and failures, as a bar in a terminal, else a line now and then."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from calotype.terminal import console, say, size_text, styled, time_text, visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType  # noqa: TID251 - the type alone

__all__ = [
    "Pace",
    "Show",
    "Track",
    "bar_console",
    "count_failure",
    "counter",
    "is_first_rank",
    "silent",
    "track",
]

Show = Callable[[int, int], None]
"""Callback with (done, total): the type of every `progress` argument."""


class Track(Protocol):
    """The type of `track` and `silent`, for functions whose caller chooses how to show progress."""

    def __call__(self, what: str, *, unit: str = "images") -> AbstractContextManager[Show]: ...


_PATIENCE: Final = 1.0
"""Seconds before the bar is shown: short waits need none."""
_REDRAW: Final = 0.1
"""Seconds between two updates of the bar."""
_LINE_EVERY: Final = 10.0
"""Seconds between two lines where there is no terminal."""
_KINDS: Final = 4
"""Kinds of failure that are named; the rest are counted together."""
_WINDOW: Final = 5.0
"""Seconds that a rate looks back, at least."""
_POINTS: Final = 8


class Pace:
    """The current rate of work, from its last few seconds.

    The time before the first items does not count, nor do they: a model was loaded, or they came from a cache. What
    came at another rate expires after `_WINDOW` seconds; work that takes long for each item is averaged over several.
    """

    def __init__(self, now: float) -> None:
        self._points: deque[tuple[float, int]] = deque([(now, 0)])
        """(time, items done then), the oldest first. The first is where the window begins."""

    def add(self, now: float, done: int) -> None:
        """Note that `done` items are done at a time, in seconds."""
        points = self._points
        if len(points) > 1 and now - points[-2][0] < _WINDOW / _POINTS / 2:
            points[-1] = (now, done)  # one point for several items
        else:
            points.append((now, done))
            if len(points) == 3 and not points[0][1]:
                points.popleft()
        while len(points) > _POINTS + 1 and now - points[1][0] >= _WINDOW:
            points.popleft()

    @property
    def rate(self) -> float | None:
        """Items per second; None before the first."""
        (start, before), (end, done) = self._points[0], self._points[-1]
        return (done - before) / (end - start) if end > start and done > before else None

    def left(self, total: int, now: float) -> float | None:
        """Seconds until `total` items are done, at least as many as none was done; None if that can't be said yet."""
        (start, _), (end, done) = self._points[0], self._points[-1]
        rate = self.rate
        return None if rate is None or end - start < _WINDOW / 2 else max((total - done) / rate, now - end)


class _Failures:
    """The failures of the progress that is shown now, by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, why: str) -> None:
        with self._lock:
            self.counts[why] += 1

    def __str__(self) -> str:
        """Return `41 failed: 30 × 404, 11 × timeout`; empty without any."""
        most = self.counts.most_common(_KINDS)
        others = self.counts.total() - sum(count for _, count in most)
        parts = [f"{count:,} × {why}" for why, count in most] + [f"{others:,} others"] * bool(others)
        return f"{self.counts.total():,} failed: {', '.join(parts)}" if most else ""


_shown: list[_Failures] = []
"""Of the progress that this process shows, the innermost last."""


def count_failure(why: str) -> None:
    """Count a failure in the progress that is shown now, if any.

    Args:
        why: Its kind in a word or two: `404`, `timeout`, `truncated`.
    """
    for failures in _shown[-1:]:
        failures.add(why)


_consoles: Final[list[Console]] = []
"""The console of the bars that are shown."""


def is_first_rank() -> bool:
    """Return whether this process prints: of several ranks that torchrun has started, only the first does."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def bar_console() -> Iterator[Console]:
    """Return the console for a bar on standard error: that of the bar around it, below which it is then drawn."""
    screen = _consoles[-1] if _consoles else console(error=True)
    _consoles.append(screen)
    try:
        yield screen
    finally:
        _consoles.remove(screen)


@contextmanager
def track(what: str, *, unit: str = "images") -> Iterator[Show]:
    """Show progress on standard error; the context's value is a function to call with (done, total).

    Of several ranks, the first one shows its own.

    Args:
        what: The activity, at the start of the line: "reading headers".
        unit: Name of the counted items; `bytes` are shown as kB, MB, ….
    """
    if not is_first_rank():
        yield lambda done, total: None
        return
    with _bar(what, unit) if console(error=True).is_terminal else _lines(what, unit) as show:
        yield show


@contextmanager
def _bar(what: str, unit: str) -> Iterator[Show]:
    from rich.console import Group
    from rich.progress import BarColumn, Progress, TextColumn

    class Bar(Progress):
        """A bar, once somebody has waited for it, and below it a line with the failures."""

        def get_renderable(self) -> RenderableType:
            if time.monotonic() - start < _PATIENCE:
                return Group()
            for each in self.tasks:  # also while nothing comes: the time left grows then
                if each.total is not None:
                    state = _state(int(each.completed), int(each.total), unit, pace, time.monotonic())
                    self.update(each.id, state=state)
            table = super().get_renderable()
            return Group(table, styled(f"  {failures}")) if failures.counts and not self.finished else table

    start, drawn = time.monotonic(), 0.0
    pace = Pace(start)
    texts = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=None)]
    texts += [TextColumn("{task.fields[state]}", markup=False)]
    with (
        _counting_failures() as failures,
        bar_console() as screen,
        Bar(*texts, console=screen, transient=True, expand=True) as bar,
    ):
        task = bar.add_task(visible(what), total=None, state="")

        def show(done: int, total: int) -> None:
            nonlocal drawn
            now = time.monotonic()
            pace.add(now, done)
            if now - drawn < _REDRAW and done < total:
                return
            drawn = now
            bar.update(task, completed=done, total=total)

        yield show


@contextmanager
def _lines(what: str, unit: str) -> Iterator[Show]:
    start = reported = time.monotonic()
    pace = Pace(start)

    def show(done: int, total: int) -> None:
        nonlocal reported
        now = time.monotonic()
        pace.add(now, done)
        if now - reported < _LINE_EVERY and not (done == total and now - start > _LINE_EVERY):
            return
        reported = now
        failed = f"; {failures}" if failures.counts else ""
        say(f"{what}: {_state(done, total, unit, pace, now)}{failed}", error=True)

    with _counting_failures() as failures:
        yield show


@contextmanager
def _counting_failures() -> Iterator[_Failures]:
    failures = _Failures()
    _shown.append(failures)
    try:
        yield failures
    finally:
        _shown.remove(failures)


def _state(done: int, total: int, unit: str, pace: Pace, now: float) -> str:
    """Return the count, the rate and the time left: `3,200/10,000 images, 512/s, 13 s left`."""
    sized = unit == "bytes"
    count = f"{size_text(done)} of {size_text(total)}" if sized else f"{done:,}/{total:,} {unit}"
    rate, left = pace.rate, pace.left(total, now)
    speed = "" if rate is None else f", {size_text(rate) if sized else _digits(rate)}/s"
    return f"{count}{speed}" + (f", {time_text(left)} left" if left is not None and done < total else "")


def _digits(rate: float) -> str:
    """Format a rate with at least two digits: captions may come at 0.25 per second."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2f}"


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
