"""Decisions that the ranks of a run share; no rank waits for one that has ended."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from calotype.errors import ConfigError, RankError

if TYPE_CHECKING:
    from calotype.train.checkpoint import Checkpoint

__all__ = ["AnyRank", "check_seen_by_all", "decided_once", "end_together"]

_T = TypeVar("_T")


def decided_once(accelerator: Accelerator, decide: Callable[[], _T]) -> _T:
    """Call a function on the main process, and return its result on every rank.

    Raises:
        Exception: The function's exception, on every rank.
    """
    box: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            box[0] = decide()
        except Exception as error:
            box[1] = error if accelerator.num_processes == 1 else _sendable(error)
    broadcast_object_list(box)
    if box[1] is not None:
        raise box[1]
    value: _T = box[0]
    return value


class AnyRank:
    """Combines a flag of all ranks with gloo on the CPU, without synchronizing the devices.

    Args:
        accelerator: The run's accelerator. All ranks create an instance at the same point.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._group: Any = dist.new_group(backend="gloo") if accelerator.num_processes > 1 else None

    def __call__(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank; all ranks call it at the same point."""
        if self._group is None:
            return flag
        found = torch.tensor(int(flag))
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self._group)
        return bool(found)


@contextmanager
def end_together(accelerator: Accelerator) -> Iterator[None]:
    """Turn the error of a lost connection to a rank that has ended into one message.

    Raises:
        RankError: The connection is lost.
    """
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise RankError(
            f"rank {accelerator.process_index} of {accelerator.num_processes}: another rank has ended or can't be "
            "reached, so this one ends, too. The message of that rank says why; --resume continues from the last "
            "checkpoint"
        ) from error


def check_seen_by_all(accelerator: Accelerator, found: Checkpoint) -> None:
    """Check that all ranks read the same checkpoint as the main process under its path.

    Raises:
        ConfigError: On every rank, if one can't read it or reads another one; names the ranks and their hosts.
    """
    if accelerator.num_processes == 1:
        return
    name = found.folder / "state.json"
    wanted = decided_once(accelerator, name.read_bytes)  # it has the checksums of the other files
    problem = None
    if not accelerator.is_main_process:
        try:
            if name.read_bytes() != wanted:
                problem = "has another one of this name"
            else:
                found.verify()
        except Exception as error:
            problem = f"can't read it ({error})"
    where = f"rank {accelerator.process_index} on {socket.gethostname()}"
    problems: list[str] = gather_object([f"{where} {problem}"] if problem else [])
    if problems:
        raise ConfigError(
            f"{found.folder}: is the checkpoint of rank 0, and {'; '.join(problems)}. Copy it there, or choose an "
            "output_dir that all ranks share"
        )


def _sendable(error: Exception) -> Exception:
    """Return the error if it can be pickled, else one with its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RankError(f"rank 0: {type(error).__name__}: {error}")
    return error
