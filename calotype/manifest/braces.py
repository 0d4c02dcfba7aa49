"""Braces in names of files, as shells and WebDataset expand them: `s-{000..099}.tar`, `{train,extra}.jsonl`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final

from calotype.errors import ManifestError

__all__ = ["expand_braces", "has_braces"]

_INNERMOST: Final = re.compile(r"\{([^{}]*)\}")
_RANGE: Final = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(\d{1,9}))?")
_MOST: Final = 100_000
"""Names that a pattern may stand for."""


def has_braces(name: str) -> bool:
    """Whether something in a name would be expanded."""
    return any(_options(match[1]) is not None for match in _INNERMOST.finditer(name))


def expand_braces(name: str) -> list[str]:
    """All names that one with braces stands for, in order. `{a..b}` counts, with the zeros that an end begins with.

    Raises:
        ManifestError: They are more than 100,000.
    """
    if math.prod(len(_options(match[1]) or "1") for match in _INNERMOST.finditer(name)) > _MOST:
        raise ManifestError(f"{name}: stands for more than {_MOST:,} files")
    return list(dict.fromkeys(_expanded(name)))


def _expanded(name: str) -> Iterator[str]:
    match = next((match for match in _INNERMOST.finditer(name) if _options(match[1]) is not None), None)
    if match is None:
        yield name
        return
    for option in _options(match[1]) or ():
        yield from _expanded(f"{name[: match.start()]}{option}{name[match.end() :]}")


def _options(inside: str) -> list[str] | None:
    """What stands for a pair of braces; None where they are part of a name."""
    if match := _RANGE.fullmatch(inside):
        first, last = int(match[1]), int(match[2])
        width = max((len(end) for end in match.group(1, 2) if end.lstrip("-").startswith("0")), default=0)
        step = max(int(match[3] or 1), 1)
        numbers = range(first, last + (1 if last >= first else -1), step if last >= first else -step)
        return [f"{number:0{width}d}" for number in numbers[: _MOST + 1]]
    return inside.split(",") if "," in inside else None
