"""Estimates the bytes that encoding adds to a store, and its duration on this machine."""

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
from calotype.terminal import size_text

__all__ = ["Estimate", "Kept", "check_room", "estimate", "free_bytes", "kept_bytes", "operations_per_second"]

_SPARE: Final = 64 << 20
"""Bytes of the disk that must stay free."""
_SAMPLED: Final = 256
"""Maximum number of texts whose tokens are counted, for models whose records have no padding."""


class Kept(NamedTuple):
    """Bytes that encoding adds to the store."""

    images: int
    """Bytes of the images' records."""
    texts: int
    """Bytes of the texts' records."""

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.images + self.texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Size and duration of the missing records' encoding."""

    pictures: int
    """Number of images to encode."""
    texts: int
    """Number of texts to encode."""
    reused: int
    """Number of records that are already stored."""
    bytes: int
    """Bytes of all records. If texts are stored without padding, extrapolated from the tokens of a sample."""
    picture_bytes: int
    text_bytes: int
    seconds: float
    """Accurate to a factor of 3. Does not include decoding the images."""
    operations: float
    """Floating-point operations."""
    device: str
    """Device of the models."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def estimate(work: MissingRecords, models: FrozenModels) -> Estimate:
    """Estimate the size and duration of encoding.

    Args:
        work: Result of `find_missing`.
        models: The frozen models. Their device is benchmarked for about 0.1 s.
    """
    facts = models.encoding_spec
    kept = kept_bytes(work, models)
    operations = sum(facts.picture_flops(*one.geometry.target_size) for one in work.images)
    operations += len(work.texts) * facts.text_flops
    pace = operations_per_second(models.device, models.dtype) if operations else 1.0
    return Estimate(
        pictures=len(work.images),
        texts=len(work.texts),
        reused=work.reused,
        bytes=kept.total,
        picture_bytes=kept.images,
        text_bytes=kept.texts,
        seconds=operations / pace,
        operations=operations,
        device=str(models.device),
    )


def kept_bytes(work: MissingRecords, models: FrozenModels) -> Kept:
    """Return the bytes of the missing records, without the headers of their shards."""
    facts, itemsize = models.encoding_spec, models.dtype.itemsize
    images = sum(facts.picture_bytes(*one.geometry.target_size) for one in work.images)
    images = images * itemsize // 2  # the facts are in bfloat16
    if models.latents == "mean" and facts.posterior:
        images //= 2
    # Numbers per text: of outputs with a fixed number of tokens, and per token of outputs without padding.
    padded = trimmed = 0
    for output in facts.texts:
        tokens = output.tokens
        if tokens is not None and models.spec.sequence_length and models.max_sequence_length:
            tokens += models.max_sequence_length - models.spec.sequence_length
        if output.trimmed:
            trimmed += output.width
        else:
            padded += (tokens or 1) * output.width
    texts = len(work.texts) * padded
    if trimmed:
        texts += round(_mean_tokens(work.texts, models) * len(work.texts) * trimmed)
    return Kept(images, texts * itemsize)


def _mean_tokens(texts: Sequence[TextRecord], models: FrozenModels) -> float:
    """Return the mean tokens of a record, from a sample evenly spread over the texts, which are sorted by length."""
    step = -(-len(texts) // _SAMPLED) or 1
    sample = [one.text for one in texts[step // 2 :: step]]
    try:
        return statistics.fmean(models.token_counts(sample)) if sample else 0.0
    except (CalotypeError, ImportError, OSError, ValueError):  # no tokenizers: assume the maximum
        return float(max(output.tokens or 1 for output in models.spec.encodings.texts))


def check_room(work: MissingRecords, models: FrozenModels, store: Path) -> None:
    """Check that the disk has the space for the missing records, and 64 MiB more.

    Args:
        work: Result of `find_missing`.
        models: The frozen models.
        store: Folder of the store.

    Raises:
        StoreError: The disk has less free space.
    """
    kept, free = kept_bytes(work, models), free_bytes(store)
    if kept.total and kept.total + _SPARE > free:
        raise StoreError(
            f"{store}: encoding {len(work.images):,} images takes {size_text(kept.images)} and {len(work.texts):,} "
            f"texts {size_text(kept.texts)}; with {size_text(_SPARE)} left alone, that is more than the "
            f"{size_text(free)} that are free; choose a --store on another disk, a lower resolution, a smaller "
            "max_sequence_length, fewer variants, or latents: mean, which halves the images"
        )


def operations_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Benchmark a device: floating-point operations per second of a large matrix product, the median of five."""
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
    """Return the free bytes of the disk that a folder is on, or would be created on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
