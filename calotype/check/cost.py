"""Cost of each cache level: bytes for this dataset and model, seconds measured on a few samples."""

from __future__ import annotations

import copy
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from calotype.check.facts import Facts
from calotype.check.report import CacheCost
from calotype.check.tokens import longest_texts
from calotype.data.dataset import TextToImageDataset
from calotype.data.pixel_cache import PixelCache
from calotype.encodings.estimate import operations_per_second
from calotype.errors import CalotypeError
from calotype.images import ImageReader
from calotype.models.spec import EncodingSpec
from calotype.terminal import size_text
from calotype.types import SampleKey

__all__ = ["cost_facts", "target_sizes"]

_SAMPLES: Final = 16
_SECONDS: Final = 0.15
"""Approximate duration of each measurement, once all samples were prepared."""
_READ: Final = 64 << 20
"""Bytes written and read to time the disk."""

Sizes = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """Seconds per sample, with all threads busy."""

    prepared: float
    """Prepare from the file or URL."""
    cached: float
    """Prepare from a warm pixel cache."""
    finished: float
    """`dataset.finish` alone."""
    fetched: float | None
    """The share of `prepared` that is spent on fetching; None if no image is remote."""
    samples: int


def cost_facts(
    dataset: TextToImageDataset,
    facts: Sequence[Facts],
    sizes: Sizes,
    *,
    batch_size: int = 1,
    threads: int = 1,
    encodings: EncodingSpec | None = None,
) -> tuple[CacheCost, ...]:
    """Measure the levels `none`, `downloads`, `pixel_cache`, `device_cache` and `encodings`, in this order.

    Args:
        dataset: Up to 16 of its samples are prepared, for a fraction of a second per measurement.
        facts: Facts of each row.
        sizes: int32 (N, 2), (height, width) of the images in pixels; 0 if unreadable.
        batch_size: Batch size of the Loader.
        threads: Number of threads that prepare samples.
        encodings: Sizes and costs of the pipeline's own encoders; None for those of the dataset's model.

    Returns:
        The levels; empty if no image is usable.
    """
    usable = np.array([one.problem is None for one in facts]) & (sizes > 0).all(axis=1)
    if not usable.any():
        return ()
    rows = np.flatnonzero(usable)
    shown = float(dataset.manifest.weights()[rows].sum())
    targets = target_sizes(dataset, sizes, rows)
    remote = [row for row in rows.tolist() if dataset.manifest[row].image.url is not None] if _remote(dataset) else []
    measured = _measure(dataset, _spread(rows, facts), remote, threads)
    if measured is None:
        return ()
    base = CacheCost(
        level="none",
        place="",
        bytes=None,
        fill_seconds=None,
        epoch_seconds=measured.prepared * shown,
        note=f"{measured.samples} samples prepared here with {_threads(threads)}",
    )
    return (
        base,
        _downloads(facts, remote, measured, shown, dataset.reader.fetcher.connections),
        _pixels(dataset, sizes, rows, targets, measured, shown),
        _device(dataset, targets, measured, shown),
        _encodings(dataset, targets, shown, encodings),
    )


def target_sizes(dataset: TextToImageDataset, sizes: Sizes, rows: npt.NDArray[np.int64]) -> Sizes:
    """Return the size of the samples of some rows.

    Args:
        dataset: Has the buckets and the image transform.
        sizes: int32 (N, 2), (height, width) of all images in pixels.
        rows: int64 (R,), indices of the rows.

    Returns:
        int32 (R, 2), (height, width) in pixels.
    """
    if dataset.buckets is not None:
        assigned, _ = dataset.scan(headers=sizes)
        return np.array(dataset.buckets.sizes, np.int32)[assigned[rows]]
    transform = dataset.img_transform
    if transform.output_size is not None:
        return np.tile(np.array(transform.output_size, np.int32), (len(rows), 1))
    drawn = [
        transform.draw(tuple(sizes[row].tolist()), SampleKey(row), dataset.seed).target_size for row in rows.tolist()
    ]
    return np.array(drawn, np.int32)


def _remote(dataset: TextToImageDataset) -> bool:
    return any(ref.url is not None for ref in dataset.manifest.refs(range(min(len(dataset), 1000))))


def _spread(rows: npt.NDArray[np.int64], facts: Sequence[Facts]) -> list[int]:
    """Return rows spread evenly from the smallest file to the largest, as a representative sample."""
    lengths = [header.bytes if (header := facts[row].header) is not None else 0 for row in rows.tolist()]
    order = rows[np.argsort(lengths, kind="stable")]
    places = np.linspace(0, len(order) - 1, min(_SAMPLES, len(order))).round().astype(int)
    return [int(order[place]) for place in dict.fromkeys(places.tolist())]


def _measure(dataset: TextToImageDataset, rows: list[int], remote: Sequence[int], threads: int) -> _Measured | None:
    """Time a few samples; None if none of them can be prepared."""
    plain = dataset.with_cache(None)
    if remote:  # measure without local copies
        fetcher = copy.copy(dataset.reader.fetcher)
        fetcher.downloads = None
        plain.reader = ImageReader(
            decode=dataset.reader.decode,
            background=dataset.reader.background,
            max_pixels=dataset.reader.max_pixels,
            fetcher=fetcher,
        )
    cached = plain.with_cache(PixelCache())

    def can_prepare(row: int) -> bool:
        try:
            cached.prepare(row)  # fills the cache, and is the warm-up
        except CalotypeError:
            return False
        return True

    tried = rows[:: max(1, len(rows) // 4)] if remote else rows
    with ThreadPoolExecutor(threads) as pool:
        good = [row for row, prepares in zip(tried, pool.map(can_prepare, tried), strict=True) if prepares]
        if not good:
            return None
        prepared = _pace(pool, plain.prepare, good)
        from_cache = _pace(pool, cached.prepare, good)
    # A loader fetches ahead over all connections, while its threads decode.
    fetched = None
    if remote:
        images = [plain.manifest[row].image for row in good]
        with ThreadPoolExecutor(len(images)) as pool:
            latency = _median_seconds(lambda: list(pool.map(plain.reader.read_bytes, images)), at_most=_SECONDS)
        fetched = latency / plain.reader.fetcher.connections
        prepared = max(0.0, prepared - latency / threads) + fetched
    return _Measured(
        prepared=prepared,
        cached=from_cache,
        finished=_finish_pace(dataset, cached.prepare(good[0])),
        fetched=fetched,
        samples=len(good),
    )


def _pace(pool: ThreadPoolExecutor, work: Callable[[int], Any], rows: Sequence[int]) -> float:
    """Return the seconds per row: the median of up to five rounds over all rows."""
    return _median_seconds(lambda: list(pool.map(work, rows)), at_most=_SECONDS) / len(rows)


def _finish_pace(dataset: TextToImageDataset, sample: dict[str, Any]) -> float:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = {key: value.to(device)[None] for key, value in sample.items() if isinstance(value, torch.Tensor)}

    def finish() -> None:
        dataset.finish(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return _median_seconds(finish)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _median_seconds(work: Callable[[], Any], *, at_most: float = math.inf) -> float:
    """Return the median duration of five calls; of fewer if they take more than `at_most` seconds in all."""
    times: list[float] = []
    start = time.perf_counter()
    while not times or (len(times) < 5 and time.perf_counter() - start < at_most):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _downloads(
    facts: Sequence[Facts], remote: Sequence[int], measured: _Measured, shown: float, connections: int
) -> CacheCost:
    if not remote or measured.fetched is None:
        return CacheCost(
            level="downloads", place="disk", bytes=0, fill_seconds=0.0, epoch_seconds=None, note="no image is remote"
        )
    length = sum(header.bytes for row in remote if (header := facts[row].header) is not None)
    return CacheCost(
        level="downloads",
        place="disk",
        bytes=length,
        fill_seconds=measured.fetched * len(remote),
        epoch_seconds=max(0.0, measured.prepared - measured.fetched) * shown,
        note=f"{measured.samples} images fetched here; {connections} at a time are, if the server keeps up",
    )


def _pixels(
    dataset: TextToImageDataset,
    sizes: Sizes,
    rows: npt.NDArray[np.int64],
    targets: Sizes,
    measured: _Measured,
    shown: float,
) -> CacheCost:
    fixed = dataset.img_transform.fixed_geometry
    kept = targets if fixed else sizes[rows]
    length = _pixel_bytes(kept)
    what = "cropped and resized pixels" if fixed else "whole images, since the crop is sampled anew each time"
    free = _free_memory()
    warning = f"; more than the {size_text(free)} of memory that is free here" if free and length > free else ""
    return CacheCost(
        level="pixel_cache",
        place="memory",
        bytes=length,
        fill_seconds=measured.prepared * len(rows),
        epoch_seconds=measured.cached * shown,
        note=f"{what}{warning}",
    )


def _device(dataset: TextToImageDataset, targets: Sizes, measured: _Measured, shown: float) -> CacheCost:
    if not dataset.img_transform.fixed_geometry:
        return CacheCost(
            level="device_cache",
            place="device",
            bytes=None,
            fill_seconds=None,
            epoch_seconds=None,
            note="not possible: the crop is sampled anew each time, and only cropped images are kept there",
        )
    length = _pixel_bytes(targets)
    note = "no GPU here: the last step was timed on the CPU"
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        note = f"{size_text(free)} are free on {torch.cuda.get_device_name()}"
    return CacheCost(
        level="device_cache",
        place="device",
        bytes=length,
        fill_seconds=measured.prepared * len(targets),
        epoch_seconds=measured.finished * shown,
        note=note,
    )


def _pixel_bytes(sizes: Sizes) -> int:
    return 3 * int(sizes.astype(np.int64).prod(axis=1).sum())


def _encodings(dataset: TextToImageDataset, targets: Sizes, shown: float, own: EncodingSpec | None) -> CacheCost:
    spec = own if own is not None else dataset.spec.encodings if dataset.spec is not None else None
    if spec is None:
        return CacheCost(
            level="encodings",
            place="disk",
            bytes=None,
            fill_seconds=None,
            epoch_seconds=None,
            note="depends on the model: --model says which",
        )
    texts = len(longest_texts(dataset) | {"": []})
    image_costs = [(spec.picture_bytes(h, w), spec.picture_flops(h, w)) for h, w in targets.tolist()]
    work = sum(flops for _, flops in image_costs) + texts * spec.text_flops
    # The dtype that encoders would use on this device.
    device, dtype = ("GPU", torch.bfloat16) if torch.cuda.is_available() else ("CPU", torch.float32)
    rate = operations_per_second(torch.device("cuda" if device == "GPU" else "cpu"), dtype)
    each = sum(length for length, _ in image_costs) / len(image_costs) + spec.text_bytes
    return CacheCost(
        level="encodings",
        place="disk",
        bytes=sum(length for length, _ in image_costs) + texts * spec.text_bytes,
        fill_seconds=work / rate,
        epoch_seconds=each * shown / _read_rate(),
        note=f"{len(image_costs):,} images, {texts:,} texts, one variant each, bfloat16; the time to fill is an "
        f"estimate for this {device}, right within a factor of 3",
    )


def _read_rate() -> float:
    """Return the read rate in bytes per second, of a file that was just written: it is read from the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "probe")
        file.write_bytes(bytes(_READ))
        buffer = bytearray(_READ)
        begun = time.perf_counter()
        with file.open("rb", buffering=0) as opened:
            opened.readinto(buffer)
        return _READ / (time.perf_counter() - begun)


def _free_memory() -> int | None:
    """Return the free memory in bytes; None if the system does not report it."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
