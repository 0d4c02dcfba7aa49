"""Recovery: finish the shards of writers that died. Complete puts are preserved, an incomplete one is removed."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from calotype.core.atomic import sync_folder
from calotype.encodings.store.dropped import write_dropped
from calotype.encodings.store.files import write_all
from calotype.encodings.store.shard import FINISHED, OPEN, Header, damaged_records, pread_all, read_header, read_keys
from calotype.errors import NewerFormatError, StoreError
from calotype.terminal import get_logger

__all__ = ["BROKEN", "finish_dead_writers"]

_log = get_logger(__name__)

BROKEN: Final = ".broken"
"""Suffix of a shard that can't be recovered."""


def finish_dead_writers(store: Path) -> None:
    """Finish every open shard that no running process has locked; safe to call from several processes at once.

    Raises:
        OSError: The folder can't be written.
    """
    shards = store / "shards"
    for path in (*shards.glob(f"*{OPEN}"), *shards.glob(".*.new")):
        with suppress(FileNotFoundError):  # finished meanwhile, by its writer or another process
            fd = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.stat().st_ino != os.fstat(fd).st_ino:
                    continue
                if path.name.endswith(OPEN):
                    _finish(store, path, fd)
                else:
                    path.unlink()
            except BlockingIOError:  # its writer is running
                continue
            finally:
                os.close(fd)


def _finish(store: Path, path: Path, fd: int) -> None:
    """Verify and finish one shard. Every byte is read: a power cut may have lost data that the header lists."""
    name = path.name.removesuffix(OPEN)
    try:
        header = read_header(fd, path)
    except NewerFormatError:
        return
    except StoreError as error:
        _log.warning("%s (its writer did not finish it, and it is set aside as %s)", error, name + BROKEN)
        path.rename(path.with_name(name + BROKEN))
        return
    # Remove incomplete and damaged groups at the end.
    complete = [group for group in header.groups if group.end <= header.size]
    damaged = [damaged_records(fd, group) for group in complete]
    while complete and damaged[-1].any():
        complete.pop()
        damaged.pop()
    if lost := sum(group.count for group in header.groups[len(complete) :]):
        _log.warning("%s: its writer was killed, and the last %d records are lost", path, lost)
    if not complete:
        path.unlink()
        return
    # Drop damaged records in the groups before, then finish the shard.
    if any(wrong.any() for wrong in damaged):
        keys = [read_keys(fd, group)[wrong] for group, wrong in zip(complete, damaged, strict=True)]
        write_dropped(store, {name: np.concatenate(keys)})
    _truncate_header(fd, header, len(complete))
    os.ftruncate(fd, complete[-1].end)
    os.fsync(fd)
    path.rename(path.with_name(f"{name}{FINISHED}"))
    sync_folder(path.parent)


def _truncate_header(fd: int, header: Header, groups: int) -> None:
    """Truncate the header's JSON after `groups` groups. The write of one byte commits it; then the rest is cleared."""
    brace = header.brace
    if groups < len(header.groups):
        head = pread_all(fd, header.base, 0)
        brace = head.index(f',"{groups:05d}.'.encode("ascii"))
        write_all(fd, [b"}"], brace)
    write_all(fd, [b" " * (header.base - brace - 1)], brace + 1)
