"""`collate`: stacks a list of samples into a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from calotype.errors import CollateError
from calotype.types import Batch

__all__ = ["FetchedSample", "check_same", "collate", "collate_values"]

_TORCH_STACKS = (torch.Tensor, np.ndarray, np.generic, int, float, str, bytes, Mapping, tuple)
"""Types of values that torch's default collate handles."""


class FetchedSample(dict[str, Any]):
    """A sample that a DataLoader fetched. torch's default collate checks and stacks these as `collate` does.

    Args:
        values: The sample.
        id: Its id, for messages.
    """

    def __init__(self, values: Mapping[str, Any], *, id: str) -> None:
        super().__init__(values)
        self.id = id


def collate(batch: Sequence[Mapping[str, Any]], padding_idx: int = 0, ignore_idx: int = -100) -> Batch:
    """Stack samples key by key.

    * Tensors and numbers are stacked; shapes and dtypes must be equal. Numbers become int64, float32 or bool, whatever
      torch's default dtype is.
    * Lists of token ids are padded to the longest with `padding_idx`, and a bool mask (True for tokens of the sample)
      is added under `<key>_mask`.
    * Strings and everything else become a list.

    Works as the `collate_fn` of torch's DataLoader and of torchtune.

    Args:
        batch: Samples with the same keys.
        padding_idx: Token id that pads lists of token ids.
        ignore_idx: Not used: there are no labels. Accepted because torchtune's recipes pass it.

    Returns:
        Key → tensor (B, …) or list of B values.

    Raises:
        CollateError: Keys, shapes or dtypes differ. Names the samples by their id, if they have one.
    """
    if not batch:
        raise CollateError("collate: there are no samples to make a batch of")
    for sample in batch[1:]:
        check_same(batch[0], sample)
    out: Batch = {}
    for key in batch[0]:
        out |= collate_values(key, [sample[key] for sample in batch], padding_idx=padding_idx)
    return out


def collate_values(key: str, values: list[Any], *, padding_idx: int = 0) -> Batch:
    """Collate the values of one key.

    Args:
        key: The key.
        values: One value for each sample.
        padding_idx: Token id that pads lists of token ids.

    Returns:
        The entry of this key; if lists were padded, also that of their mask.
    """
    first = values[0]
    if isinstance(first, torch.Tensor):
        return {key: default_collate(values)}  # (B, …); in a worker of a DataLoader, in shared memory
    if isinstance(first, bool | int | float):
        dtype = torch.float32 if any(isinstance(value, float) for value in values) else None
        return {key: torch.tensor(values, dtype=dtype, device="cpu")}  # (B,)
    if isinstance(first, list) and all(isinstance(token, int) for value in values for token in value):
        tokens = torch.full((len(values), max(map(len, values))), padding_idx, dtype=torch.int64, device="cpu")
        mask = torch.zeros_like(tokens, dtype=torch.bool)  # (B, longest), as the tokens
        for row, value in enumerate(values):
            tokens[row, : len(value)] = torch.tensor(value, dtype=torch.int64, device="cpu")
            mask[row, : len(value)] = True
        return {key: tokens, f"{key}_mask": mask}
    return {key: values}


def check_same(first: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Check that two samples can be in one batch.

    Raises:
        CollateError: Their keys, types, shapes or dtypes differ.
    """
    if first.keys() != other.keys():
        only_first, only_other = sorted(first.keys() - other.keys()), sorted(other.keys() - first.keys())
        raise CollateError(
            f"collate: {_name(first)} and {_name(other)} have different keys: "
            f"only the first has {only_first}, only the second has {only_other}"
        )
    for key, value in first.items():
        second = other[key]
        if not isinstance(value, torch.Tensor) or not isinstance(second, torch.Tensor):
            if type(value) is not type(second):
                raise CollateError(
                    f"collate: {key!r} is a {type(value).__name__} in {_name(first)} "
                    f"but a {type(second).__name__} in {_name(other)}"
                )
        elif value.shape != second.shape or value.dtype != second.dtype:
            hint = ""
            if value.dim() == 3 and value.shape[1:] != second.shape[1:]:
                hint = (
                    "; a batch holds images of one size: use DataLoader(dataset, batch_sampler="
                    "calotype.BatchSampler(dataset, batch_size)) or calotype.Loader, or make all images one size "
                    "with buckets=False"
                )
            raise CollateError(
                f"collate: {key!r} is {_shape(value)} in {_name(first)} but {_shape(second)} in {_name(other)}{hint}"
            )


def _default_collate(batch: list[FetchedSample], *, collate_fn_map: Mapping[Any, Any]) -> Batch:
    """Collate for `default_collate`: as torch does, where it can; lists and other objects as `collate` does."""
    for sample in batch[1:]:
        check_same(batch[0], sample)
    out: Batch = {}
    for key, first in batch[0].items():
        values = [sample[key] for sample in batch]
        out |= {key: default_collate(values)} if isinstance(first, _TORCH_STACKS) else collate_values(key, values)
    return out


default_collate_fn_map[FetchedSample] = _default_collate  # torch's documented way to extend its default collate


def _name(sample: Mapping[str, Any]) -> str:
    id = sample["id"] if "id" in sample else getattr(sample, "id", None)
    return f"sample {id!r}" if id is not None else "a sample"


def _shape(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


# `calotype.collate` was this module: its members are found by their former paths, too.
vars(collate).update(collate=collate, check_same=check_same, collate_values=collate_values)
