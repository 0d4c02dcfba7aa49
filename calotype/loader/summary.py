"""A dataset in numbers: what was found, its buckets, what a batch holds, and how fast batches come."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from calotype.loader import Loader
from calotype.types import Batch

__all__ = ["BucketCount", "Entry", "Summary", "describe_batch", "summarise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketCount:
    """How many images go to one size."""

    height: int
    width: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key of a batch."""

    key: str
    kind: str
    """The dtype of a tensor, else `list of str` and the like."""
    shape: tuple[int, ...]
    low: float | None
    high: float | None
    device: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What `summarise` found. `to_json` gives it as plain values."""

    found: dict[str, Any]
    """What `Manifest.describe` says."""
    buckets: tuple[BucketCount, ...]
    batches: int
    """Of an epoch, on each rank."""
    batch: tuple[Entry, ...]
    """Of the first of the fullest batches seen."""
    images_per_second: float | None
    """Over the rest of an epoch or `seconds`, whichever is shorter; None when there was but one batch."""
    ledger: dict[str, int]
    """What was left out, repeated, enlarged, cut: how many of each."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarise(loader: Loader, *, seconds: float = 10.0) -> Summary:
    """Runs a loader for up to one epoch.

    Args:
        loader: It is left in the middle of its epoch; make one for the purpose.
        seconds: How long to measure the rate.
    """
    dataset = loader.dataset
    fullest: Batch | None = None
    images, start, spent = 0, 0.0, 0.0
    for batch in loader:
        if fullest is None:
            fullest, start = batch, time.perf_counter()
            continue
        images += _size(batch)
        spent = time.perf_counter() - start
        if _size(batch) > _size(fullest):
            fullest = batch
        if spent > seconds:
            break
    assert fullest is not None
    sizes = [size for size in dataset.bucket_sizes if size is not None]
    counts = np.bincount(loader.plan.buckets[loader.plan.buckets >= 0], minlength=len(sizes)).tolist()
    return Summary(
        found=dataset.manifest.describe() if dataset.manifest is not None else {},
        buckets=tuple(
            BucketCount(height=size[0], width=size[1], images=count)
            for size, count in zip(sizes, counts, strict=False)
            if count
        ),
        batches=len(loader),
        batch=describe_batch(fullest),
        images_per_second=images / spent if images else None,
        ledger=loader.ledger.counts(),
    )


def describe_batch(batch: Batch) -> tuple[Entry, ...]:
    """Key, dtype, shape and range of everything in a batch."""
    entries = []
    for key, value in batch.items():
        if isinstance(value, torch.Tensor):
            entry = Entry(
                key=key,
                kind=str(value.dtype).removeprefix("torch."),
                shape=tuple(value.shape),
                low=float(value.min()) if value.numel() else None,
                high=float(value.max()) if value.numel() else None,
                device=str(value.device),
            )
        else:
            kind = f"list of {type(value[0]).__name__}" if isinstance(value, list) and value else type(value).__name__
            shape = (len(value),) if isinstance(value, list) else ()
            entry = Entry(key=key, kind=kind, shape=shape, low=None, high=None, device=None)
        entries.append(entry)
    return tuple(entries)


def _size(batch: Batch) -> int:
    return len(next(iter(batch.values())))
