"""Paths that lead nowhere: what lies beside them that may be meant."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Final

__all__ = ["exists", "near", "near_folder"]

_LOOKS_LIKE: Final = 0.75
"""How near (difflib's ratio) a name must be to a folder's to count as a slip, where it may be a dataset of the hub."""


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
