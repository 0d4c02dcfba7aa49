"""What encoding would take: bytes from the model's facts, seconds from its operations and this machine's pace."""

from __future__ import annotations

import shutil
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from calotype.encodings.work import Work
from calotype.models import ModelSpec

__all__ = ["Estimate", "estimate", "free_bytes", "operations_per_second"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is left to do, before it is done."""

    pictures: int
    texts: int
    reused: int
    """Records that are there."""
    bytes: int
    """At most: texts that are kept without their padding take less."""
    seconds: float
    """Right within a factor of 3; decoding the pictures is not in it."""
    operations: float
    device: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate(work: Work, spec: ModelSpec, *, device: torch.device, dtype: torch.dtype) -> Estimate:
    """Adds up what the work takes.

    Args:
        work: What `find_work` found.
        spec: Of the model.
        device: Where it would run; timed for about a tenth of a second.
        dtype: Of the models and of what is kept.
    """
    facts = spec.encodings
    sizes = [one.geometry.target_size for one in work.pictures]
    pictures = sum(facts.picture_bytes(*size) for size in sizes)
    operations = sum(facts.picture_flops(*size) for size in sizes) + len(work.texts) * facts.text_flops
    return Estimate(
        pictures=len(work.pictures),
        texts=len(work.texts),
        reused=work.reused,
        bytes=(pictures + len(work.texts) * facts.text_bytes) * dtype.itemsize // 2,  # the facts are in bfloat16
        seconds=operations / operations_per_second(device, dtype) if operations else 0.0,
        operations=operations,
        device=str(device),
    )


def operations_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Of a large matrix product: the median of five."""
    side = 8192 if device.type == "cuda" else 1024
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        product = matrix @ matrix
        float(product[0, 0])  # waits for the device
        times.append(time.perf_counter() - begun)
    return 2 * side**3 / statistics.median(times)


def free_bytes(folder: Path) -> int:
    """Of the disk that a folder is on, or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
