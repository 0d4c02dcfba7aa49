"""What the main process decides for all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

__all__ = ["decided_once"]

_T = TypeVar("_T")


def decided_once(accelerator: Accelerator, decide: Callable[[], _T]) -> _T:
    """Calls a function on the main process, and gives what it returns to every rank.

    Raises:
        Exception: What it raised, on every rank: none of them waits for one that has ended.
    """
    box: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            box[0] = decide()
        except Exception as error:
            box[1] = error
    broadcast_object_list(box)
    if box[1] is not None:
        raise box[1]
    value: _T = box[0]
    return value
