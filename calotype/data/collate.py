"""collate: a list of samples becomes one batch of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from calotype.errors import CollateError
from calotype.types import Batch

__all__ = ["check_same", "collate", "collate_values"]


def collate(batch: Sequence[Mapping[str, Any]], padding_idx: int = 0, ignore_idx: int = -100) -> Batch:
    """Stacks samples key by key.

    * tensors (and numbers) are stacked: shapes and dtypes have to agree;
    * lists of token ids are padded to the longest with `padding_idx`, and a bool mask (True for real tokens)
      is added under `<key>_mask`;
    * strings and everything else become a list.

    It can stand as torchtune's and torch's `collate_fn`.

    Args:
        batch: Samples with the same keys.
        padding_idx: What fills up token lists.
        ignore_idx: Accepted because torchtune's recipes hand it over; there are no labels here to ignore.

    Returns:
        Key → tensor (B, …) or list of B values.

    Raises:
        CollateError: Keys, shapes or dtypes differ; says which samples, by id where they carry one.
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
    """The batch entries that come of one key: itself, and its mask where lists were padded."""
    first = values[0]
    if isinstance(first, torch.Tensor):
        return {key: torch.stack(values)}
    if isinstance(first, bool | int | float):
        return {key: torch.tensor(values)}
    if isinstance(first, list) and all(isinstance(token, int) for value in values for token in value):
        tokens = torch.full((len(values), max(map(len, values))), padding_idx, dtype=torch.int64)  # (B, longest)
        mask = torch.zeros_like(tokens, dtype=torch.bool)
        for row, value in enumerate(values):
            tokens[row, : len(value)] = torch.tensor(value, dtype=torch.int64)
            mask[row, : len(value)] = True
        return {key: tokens, f"{key}_mask": mask}
    return {key: values}


def check_same(first: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raises CollateError when two samples can't share a batch."""
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
                    "; images of different sizes need `resolution` with `buckets` (under calotype.Loader), "
                    "or `resize` with `center_crop`"
                )
            raise CollateError(
                f"collate: {key!r} is {_shape(value)} in {_name(first)} but {_shape(second)} in {_name(other)}{hint}"
            )


def _name(sample: Mapping[str, Any]) -> str:
    return f"sample {sample['id']!r}" if "id" in sample else "a sample"


def _shape(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
