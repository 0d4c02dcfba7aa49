"""Where a row of a text file is, for messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

__all__ = ["line_finder"]


def line_finder(file: Path, first: int = 0) -> Callable[[int], str]:
    """Row number → `file:line`. Lines of white space only are no rows; rows begin after `first` lines that are not.

    The file is looked through at the first call only: most files are never asked.
    """
    numbers: list[int] = []

    def where(row: int) -> str:
        if not numbers:
            with file.open("rb") as lines:
                numbers.extend(number for number, line in enumerate(lines, 1) if line.strip())
        return f"{file}:{numbers[first + row]}"

    return where
