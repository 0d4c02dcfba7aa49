"""`cache_folder`: the folder of calotype's caches. Its contents can be deleted at any time, and are made again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(name: str) -> Path:
    """Return the folder of one cache, below `$CALOTYPE_CACHE` or else `~/.cache/calotype`. It may not exist yet."""
    chosen = os.environ.get("CALOTYPE_CACHE")
    try:
        folder = Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "calotype"
    except RuntimeError:  # a user without a home folder, as in some containers: the root, as Docker does
        folder = Path("/.cache/calotype")
    return folder / name
