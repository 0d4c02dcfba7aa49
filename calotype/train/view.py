"""`TrainView`: a training run on the screen: one live bar on a terminal, else a plain line every ten seconds."""

from __future__ import annotations

import textwrap
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

from calotype.progress import bar_console
from calotype.terminal import console, say, visible
from calotype.train.report import Progress

__all__ = ["TrainView"]

_EVERY: Final = 10.0
"""Seconds between two plain lines."""
_FACT: Final = 12
"""Columns in front of what a fact says."""


class TrainView:
    """Prints a run's messages and its progress on standard output. A context manager: the bar ends with it.

    Args:
        live: Whether there is a bar, if both standard output and standard error are a terminal.
    """

    def __init__(self, *, live: bool = True) -> None:
        self._cleanup = ExitStack()
        self._live = live and console().is_terminal and console(error=True).is_terminal
        self._bar: Any = None
        self._printed = -_EVERY
        self._figures = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def tell(self, text: str) -> None:
        """Print a message, above the bar; on a terminal it is wrapped below its own beginning."""
        screen = console()
        say(*(_wrapped(text, screen.width) if screen.is_terminal else [text]))

    def step_done(self, step: int, max_steps: int) -> None:
        """Show the number of finished steps: on a terminal, before the first step and after each."""
        if not self._live:
            return
        if self._bar is None:
            self._bar = self._begin(max_steps)
            self._bar.update(0, completed=step, figures="waiting for the first batch …")
        else:
            self._bar.update(0, completed=step, figures=self._figures)

    def show(self, report: Progress) -> None:
        """Show the figures of a step."""
        last = report.step == report.max_steps
        self._figures = report.figures()
        if self._bar is not None:
            self._bar.update(0, figures=self._figures)
        now = time.monotonic()
        if last or (not self._live and now - self._printed >= _EVERY):
            self._printed = now
            say(report)

    def _begin(self, max_steps: int) -> Any:
        """Draw the bar, on standard error; what is printed meanwhile goes above it."""
        from rich.progress import BarColumn, Progress, TextColumn

        screen = self._cleanup.enter_context(bar_console())
        bar = Progress(
            TextColumn("step {task.completed}/{task.total}", markup=False),
            BarColumn(bar_width=max(4, min(40, screen.width - 72))),
            TextColumn("{task.fields[figures]}", markup=False),
            console=screen,
            transient=True,
        )
        self._cleanup.enter_context(bar)
        bar.add_task("", total=max_steps, figures="")
        return bar


def _wrapped(text: str, width: int) -> list[str]:
    """Wrap a line at a width; words, and the figure after a colon, stay whole.

    Facts (`  buckets   …`) go on below their first word; notes by two columns.
    """
    indent = " " * (_FACT if text.startswith("  ") else 2)
    joined = visible(text).replace(": ", ":\u00a0") if text.startswith("  ") else visible(text)
    lines = textwrap.wrap(joined, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in lines] or [""]
