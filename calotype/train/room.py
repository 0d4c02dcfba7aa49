"""Free disk space: checked before a write, and reported in the error if the disk fills up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from calotype.core.atomic import DISK_FULL
from calotype.encodings.estimate import free_bytes
from calotype.errors import ConfigError

__all__ = ["check_run_room", "disk_is_full", "room_for", "tensor_bytes"]

_HEADERS: Final = 64 << 10
"""Bytes of a checkpoint besides its tensors: names, shapes, `state.json`."""
_ADVICE: Final = "Free some space, or choose an output_dir on another disk"


def check_run_room(
    output: Path, *, trained: int, average: bool, result: int, in_checkpoint: bool, saves: int, keep: int
) -> None:
    """Check the free disk space for all that a run will write, before its first step.

    Args:
        output: The run's folder.
        trained: Bytes of the trained parameters; AdamW has two moments of each.
        average: Whether they have a moving average.
        result: Bytes of the final LoRA or network.
        in_checkpoint: Whether each checkpoint has the result, too.
        saves: Number of checkpoints that will be written.
        keep: Number of checkpoints that are kept, without the one being written.

    Raises:
        ConfigError: There is less free space.
    """
    each = trained * (4 if average else 3) + (result if in_checkpoint else 0) + _HEADERS
    there = len(list((output / "checkpoints").glob("step-*")))
    most = max(1, keep + 1 - there)
    count = min(saves, most)
    # If an old checkpoint is deleted, the result fits in its space.
    needed = count * each + (result if count < most else 0)
    free = free_bytes(output.absolute())
    if needed > free:
        what = f"{count} checkpoint{'s' * (count != 1)} of {each:,} bytes and the result"
        raise ConfigError(
            f"{output}: the run needs {needed:,} bytes on the disk ({what}), {free:,} bytes are free. {_ADVICE}, or "
            "lower keep_checkpoints"
        )


@contextmanager
def room_for(folder: Path, needed: int, *, what: str) -> Iterator[None]:
    """Check the free disk space before a write; turn the error of a disk that fills up meanwhile into a ConfigError.

    Args:
        folder: The folder that is written to.
        needed: Bytes to write.
        what: Name of the files in errors.

    Raises:
        ConfigError: There is not enough space.
    """
    needed += _HEADERS
    free = free_bytes(folder.absolute())
    if needed > free:
        raise _no_room(folder, what, needed, free, "")
    try:
        yield
    except Exception as error:
        if (reason := disk_is_full(error)) is None:
            raise
        raise _no_room(folder, what, needed, free_bytes(folder.absolute()), f" ({reason})") from error


def disk_is_full(error: BaseException | None) -> str | None:
    """Return the system's message if an error was caused by a full disk or quota; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return error.strerror
        for number in DISK_FULL:  # safetensors writes its files in Rust
            if f"(os error {number})" in str(error):
                return str(error).partition(" (os error")[0].rpartition(": ")[2]
        error = error.__cause__ or error.__context__
    return None


def tensor_bytes(state: Any) -> int:
    """Return the bytes of all tensors in a `state_dict`."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(map(tensor_bytes, state.values()))
    if isinstance(state, list | tuple):
        return sum(map(tensor_bytes, state))
    return 0


def _no_room(folder: Path, what: str, needed: int, free: int, reason: str) -> ConfigError:
    return ConfigError(
        f"{folder}: no room for {what}{reason}: it takes {needed:,} bytes, {free:,} bytes are free. What was saved "
        f"before is whole. {_ADVICE}"
    )
