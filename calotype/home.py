"""Where calotype keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(room: str) -> Path:
    """The folder of one kind of thing: in `$CALOTYPE_CACHE`, else in `~/.cache/calotype`. It may not be there yet."""
    home = os.environ.get("CALOTYPE_CACHE")
    return (Path(home).expanduser() if home else Path.home() / ".cache" / "calotype") / room
