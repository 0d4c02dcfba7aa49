"""`summarise`: statistics of a dataset and its batches: rows, buckets, the entries of a batch, images per second."""

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
    """Number of images in one bucket. Sizes in pixels."""

    height: int
    width: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key of a batch."""

    key: str
    kind: str
    """The dtype of a tensor, such as `uint8`; else a type, such as `list of str`."""
    shape: tuple[int, ...]
    """`(B, …)` of a tensor, `(B,)` of a list."""
    low: float | None
    """Minimum of a tensor."""
    high: float | None
    """Maximum of a tensor."""
    device: str | None
    """Device of a tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The result of `summarise`."""

    found: dict[str, Any]
    """Result of `Manifest.describe`; empty without a manifest."""
    buckets: tuple[BucketCount, ...]
    """Buckets that have images."""
    batches: int
    """Batches of an epoch, on each rank."""
    batch: tuple[Entry, ...]
    """Entries of the first of the largest batches seen."""
    images_per_second: float | None
    """Measured from the second batch to the end of the epoch, or for `seconds`; None if there was only one batch."""
    measured_images: int = 0
    """Number of images in that measurement."""
    ledger: dict[str, int]
    """Kind of ledger entry → number of entries: images left out, repeated, enlarged, truncated, …"""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def summarise(loader: Loader, *, seconds: float = 10.0) -> Summary:
    """Run a loader for up to one epoch, and describe its dataset and batches.

    Args:
        loader: A loader made for this: it may be left in the middle of an epoch.
        seconds: Maximum time for which to measure the throughput.
    """
    # Time the batches after the first, whose wait includes the start of the loader.
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
    # Count the images of each bucket.
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
        measured_images=images,
        ledger=loader.ledger.counts(),
    )


def describe_batch(batch: Batch) -> tuple[Entry, ...]:
    """Return key, dtype, shape and range of each entry of a batch."""
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
