"""Paths as users write them: braces (`s-{000..099}.tar`, `{train,extra}.jsonl`), and names with a typing error."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from calotype.errors import ManifestError

__all__ = ["exists", "expand_braces", "near", "near_folder"]

_LOOKS_LIKE: Final = 0.75
"""How near (difflib's ratio) a name must be to a folder's to count as a slip, where it may be a dataset of the hub."""
_INNERMOST: Final = re.compile(r"\{([^{}]*)\}")
_RANGE: Final = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(\d{1,9}))?")
_MOST: Final = 100_000
"""Names that a pattern may stand for."""


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is something; a path that is no path is an error.

    Raises:
        OSError: It is too long, has a null byte, or leads through a folder that can't be read.
    """
    try:
        os.stat(path)  # noqa: PTH116 - Path.exists hides some errors, and raises others
    except (FileNotFoundError, NotADirectoryError):
        return False
    except ValueError:
        raise OSError(0, "it has a null byte") from None
    return True


def near(place: Path) -> str:
    """What to add to an error about a path that is not there."""
    close = difflib.get_close_matches(place.name, _names(place.parent), n=1)
    return f"; did you mean {str(place.parent / close[0])!r}?" if close else ""


def near_folder(path: str) -> str | None:
    """The folder (or data file) here that a name of one or two parts is likely a slip for; None where there is none."""
    here = Path()
    for part in path.split("/"):
        wanted = {name for name in _names(here) if name == part or (here / name).is_dir() or "." in part}
        if part not in wanted:
            close = difflib.get_close_matches(part, wanted, n=1, cutoff=_LOOKS_LIKE)
            if not close:
                return None
            part = close[0]
        here = here / part
    return str(here)


def _names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208 - names are enough
    except OSError:
        return []


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
