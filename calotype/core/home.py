"""Where calotype keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(room: str) -> Path:
    """The folder of one kind of thing: in `$CALOTYPE_CACHE`, else in `~/.cache/calotype`. It may not be there yet."""
    given = os.environ.get("CALOTYPE_CACHE")
    try:
        folder = Path(given).expanduser() if given else Path.home() / ".cache" / "calotype"
    except RuntimeError:  # a user without a home, as in some containers: the root, as Docker has it
        folder = Path("/.cache/calotype")
    return folder / room
