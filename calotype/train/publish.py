"""Write a result atomically: under a temporary name, flushed to the disk, then renamed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from calotype.core.atomic import flush_folder, sync_folder
from calotype.train.room import room_for

__all__ = ["publish_result"]


def publish_result(folder: Path, write: Callable[[Path], Path], *, size: int) -> Path:
    """Write a file or folder atomically: an older one of its name stays until the new one is on the disk.

    Args:
        folder: The target folder.
        write: Called with a temporary folder; writes the result there and returns its path.
        size: Approximate size in bytes.

    Returns:
        The path of the result in `folder`.

    Raises:
        ConfigError: The disk has no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (
        room_for(folder, size, what="the result"),
        tempfile.TemporaryDirectory(dir=folder, prefix=".writing-", ignore_cleanup_errors=True) as scratch,
    ):
        made = write(Path(scratch))
        flush_folder(Path(scratch))
        target = folder / made.name
        if target.is_dir():  # from an earlier run: a folder can't be renamed over another
            target.rename(Path(scratch) / "before")
        made.rename(target)
    sync_folder(folder)
    return target
