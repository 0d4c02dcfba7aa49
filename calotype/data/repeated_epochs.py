"""`RepeatedEpochs`: notices that a DataLoader shows the same augmentation in each epoch."""

from __future__ import annotations

import ctypes
import multiprocessing.context
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.sharedctypes import RawArray
from typing import Any

import torch

from calotype.terminal import get_logger
from calotype.types import SampleKey

__all__ = ["RepeatedEpochs"]

logger = get_logger("calotype")
_COMPARED = 16
"""Minimum number of samples of the second epoch that are compared; two draws of one flip are often equal."""


class RepeatedEpochs:
    """Counts the samples that a DataLoader requests by number, which means epoch 0, and warns in the second epoch.

    The count is shared with the DataLoader's workers, whether they are forked or spawned. Two workers that count at the
    same time may lose a request: the warning then comes a little later.
    """

    def __init__(self) -> None:
        try:
            self._shared = RawArray(ctypes.c_uint64, 2)
        except OSError:  # no folder for shared memory: DataLoader has no workers there either
            self._shared = (ctypes.c_uint64 * 2)()

    def note(self, numbers: Sequence[int], length: int, sample: Callable[[int | SampleKey], Mapping[str, Any]]) -> None:
        """Count requests. In the second epoch, warn once if the samples of another epoch differ.

        Args:
            numbers: The samples requested.
            length: Number of samples of the dataset.
            sample: Returns a sample.
        """
        before, said = self._shared
        self._shared[0] = before + len(numbers)
        if said or not length - len(numbers) < before < length + _COMPARED:
            return
        differ = any(_differ(sample(number), sample(SampleKey(number, epoch=1))) for number in numbers)
        if differ and not self._shared[1]:  # another worker may have warned meanwhile
            self._shared[1] = 1
            logger.warning(
                "DataLoader requests samples by number: every epoch has the same flips, crops and captions. Use "
                "DataLoader(dataset, batch_sampler=calotype.BatchSampler(dataset, batch_size))"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        if multiprocessing.context.get_spawning_popen() is None:  # no worker: a copy, which counts for itself
            return RepeatedEpochs, ()
        return _of, (self._shared,)


def _of(shared: ctypes.Array[ctypes.c_uint64]) -> RepeatedEpochs:
    made = RepeatedEpochs.__new__(RepeatedEpochs)
    made._shared = shared
    return made


def _differ(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    for key, value in first.items():
        other = second.get(key)
        if isinstance(value, torch.Tensor) and isinstance(other, torch.Tensor):
            if not torch.equal(value, other):
                return True
        elif type(value) is type(other) and isinstance(value, str | int | float) and value != other:
            return True
    return False
