"""What encoding would take: bytes from the model's facts, seconds from its operations and this machine's pace."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from calotype.encodings.frozen import FrozenModels
from calotype.encodings.missing_records import MissingRecords, TextRecord
from calotype.errors import CalotypeError, StoreError

__all__ = ["Estimate", "Kept", "check_room", "estimate", "free_bytes", "kept_bytes", "operations_per_second"]

_SPARE: Final = 64 << 20
"""Bytes of the disk that are left alone."""
_SAMPLED: Final = 256
"""Texts whose tokens are counted, where a record has as many as its text."""


class Kept(NamedTuple):
    """Bytes that the work adds to the store."""

    pictures: int
    texts: int

    @property
    def total(self) -> int:
        return self.pictures + self.texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is left to do, before it is done."""

    pictures: int
    texts: int
    reused: int
    """Records that are there."""
    bytes: int
    """Of both; where texts are kept without their padding, from the tokens of a sample of them."""
    picture_bytes: int
    text_bytes: int
    seconds: float
    """Right within a factor of 3; decoding the images is not in it."""
    operations: float
    device: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate(work: MissingRecords, models: FrozenModels) -> Estimate:
    """Adds up what the work takes.

    Args:
        work: What `find_missing` found.
        models: The frozen models; where they would run is timed for about a tenth of a second.
    """
    facts = models.spec.encodings
    kept = kept_bytes(work, models)
    operations = sum(facts.picture_flops(*one.geometry.target_size) for one in work.images)
    operations += len(work.texts) * facts.text_flops
    pace = operations_per_second(models.device, models.dtype) if operations else 1.0
    return Estimate(
        pictures=len(work.images),
        texts=len(work.texts),
        reused=work.reused,
        bytes=kept.total,
        picture_bytes=kept.pictures,
        text_bytes=kept.texts,
        seconds=operations / pace,
        operations=operations,
        device=str(models.device),
    )


def kept_bytes(work: MissingRecords, models: FrozenModels) -> Kept:
    """What the records of the work take, without the headers of their shards."""
    facts, itemsize = models.spec.encodings, models.dtype.itemsize
    pictures = sum(facts.picture_bytes(*one.geometry.target_size) for one in work.images)
    pictures = pictures * itemsize // 2  # the facts are in bfloat16
    if models.latents == "mean" and facts.posterior:
        pictures //= 2
    padded = trimmed = 0
    for output in facts.texts:
        tokens = output.tokens
        if tokens is not None and facts.sequence_length and models.max_sequence_length:
            tokens += models.max_sequence_length - facts.sequence_length
        if output.trimmed:
            trimmed += output.width
        else:
            padded += (tokens or 1) * output.width
    texts = len(work.texts) * padded
    if trimmed:
        texts += round(_mean_tokens(work.texts, models) * len(work.texts) * trimmed)
    return Kept(pictures, texts * itemsize)


def _mean_tokens(texts: Sequence[TextRecord], models: FrozenModels) -> float:
    """Tokens of a record, on the average of a sample evenly spread over the texts, which are in order of length."""
    step = -(-len(texts) // _SAMPLED) or 1
    sample = [one.text for one in texts[step // 2 :: step]]
    try:
        return statistics.fmean(models.token_counts(sample)) if sample else 0.0
    except (CalotypeError, ImportError, OSError, ValueError):  # no tokenizers here: the most it can be
        return float(max(output.tokens or 1 for output in models.spec.encodings.texts))


def check_room(work: MissingRecords, models: FrozenModels, store: Path, *, free: int) -> None:
    """Refuses to begin what can't be finished.

    Args:
        work: What `find_missing` found.
        models: The frozen models.
        store: The folder of the store.
        free: Bytes that its disk has.

    Raises:
        StoreError: The disk has not that much free.
    """
    kept = kept_bytes(work, models)
    if kept.total and kept.total + _SPARE > free:
        raise StoreError(
            f"{store}: encoding {len(work.images):,} images takes {_bytes(kept.pictures)} and {len(work.texts):,} "
            f"texts {_bytes(kept.texts)}; with {_bytes(_SPARE)} left alone, that is more than the {_bytes(free)} that "
            "are free; choose a --store on another disk, a lower resolution, a smaller max_sequence_length, fewer "
            "variants, or latents: mean, which halves the images"
        )


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


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
