"""Paths as users write them: braces (`s-{000..099}.tar`, `{train,extra}.jsonl`), and suggestions for wrong ones."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from calotype.errors import ManifestError

__all__ = ["PathLike", "absolute", "exists", "expand_braces", "similar_folder", "suggestion"]

PathLike = str | os.PathLike[str]

_LOOKS_LIKE: Final = 0.75
"""How similar (difflib's ratio) the name of a local folder must be to be suggested for a possible hub dataset."""
_INNERMOST: Final = re.compile(r"\{([^{}]*)\}")
_RANGE: Final = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(\d{1,9}))?")
_MAX_NAMES: Final = 100_000
"""Names that a pattern may expand to."""


def absolute(path: PathLike) -> Path:
    """Return the absolute path with `~` expanded and links not resolved, so that a linked folder has its own name."""
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow links


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether a path exists.

    Raises:
        OSError: It is too long, has a null byte, or is in a folder that can't be read.
    """
    try:
        os.stat(path)  # noqa: PTH116 - Path.exists hides some errors, and raises others
    except (FileNotFoundError, NotADirectoryError):
        return False
    except ValueError:
        raise OSError(0, "it has a null byte") from None
    return True


def suggestion(path: Path) -> str:
    """Return what to append to an error about a missing path: the most similar one beside it."""
    close = difflib.get_close_matches(path.name, _names(path.parent), n=1)
    return f"; did you mean {str(path.parent / close[0])!r}?" if close else ""


def similar_folder(path: str) -> str | None:
    """Return the local folder or data file that a name of one or two parts likely refers to; None without one."""
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
    """Expand braces, in order. `{a..b}` counts, with the leading zeros of an end.

    Raises:
        ManifestError: There are more than 100,000 names.
    """
    if math.prod(len(_options(match[1]) or "1") for match in _INNERMOST.finditer(name)) > _MAX_NAMES:
        raise ManifestError(f"{name}: expands to more than {_MAX_NAMES:,} files")
    return list(dict.fromkeys(_expanded(name)))


def _expanded(name: str) -> Iterator[str]:
    match = next((match for match in _INNERMOST.finditer(name) if _options(match[1]) is not None), None)
    if match is None:
        yield name
        return
    for option in _options(match[1]) or ():
        yield from _expanded(f"{name[: match.start()]}{option}{name[match.end() :]}")


def _options(inside: str) -> list[str] | None:
    """Return what a pair of braces expands to; None: they are part of a name."""
    if match := _RANGE.fullmatch(inside):
        first, last = int(match[1]), int(match[2])
        width = max((len(end) for end in match.group(1, 2) if end.lstrip("-").startswith("0")), default=0)
        step = max(int(match[3] or 1), 1)
        numbers = range(first, last + (1 if last >= first else -1), step if last >= first else -step)
        return [f"{number:0{width}d}" for number in numbers[: _MAX_NAMES + 1]]
    return inside.split(",") if "," in inside else None
