"""Builds the views of a preview: the Loader's own batches, with each sample made again from its key to explain it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, islice

import numpy as np
import torch
from PIL import Image

from calotype.data.dataset import TextToImageDataset
from calotype.data.pixel_cache import PixelCache
from calotype.encodings.dataset import EncodedDataset
from calotype.errors import ConfigError, ImageError
from calotype.loader import Loader
from calotype.loader.plan import EpochPlan
from calotype.loader.summary import Entry, describe_batch
from calotype.models import TokenTransform
from calotype.previews.kept_reader import KeptReader
from calotype.previews.round_trip import Autoencoder, to_uint8
from calotype.previews.views import BatchView, Draw, Pixels, SampleView, TokenView
from calotype.progress import Show
from calotype.types import Batch, Geometry, SampleKey

__all__ = ["draw_sample", "gather", "previewed"]

_SHOWN = 512
"""Maximum longer side of originals and further draws, in pixels."""


def gather(
    loader: Loader,
    *,
    epoch: int = 0,
    batches: int = 1,
    draws: int = 3,
    autoencoder: Autoencoder | None = None,
    encoded: Loader | None = None,
    progress: Show | None = None,
) -> tuple[BatchView, ...]:
    """Return views of the first batches of an epoch, with how each of their samples was made.

    The batches come from the loader itself. Each sample is made a second time from its key to explain it;
    `SampleView.repeatable` is whether both have the same pixels.

    Args:
        loader: Its position is restored afterwards.
        epoch: The epoch to show.
        batches: Maximum number of batches.
        draws: Number of later epochs to show of each image.
        autoencoder: Encodes and decodes each trained image, to show the result.
        encoded: The loader of the same batches as encodings, to show their tensors.
        progress: Called with (done, total) samples; a round trip counts as one more.

    Raises:
        ConfigError: The loader's batches are not made of images.
        ImageError: An image can't be read, under `on_error="raise"`.
        LoaderError: As the loader does.
    """
    # Plan the epoch.
    dataset = previewed(loader)
    before = loader.state_dict()
    plan = loader.plan.epoch(epoch)
    steps = min(batches, len(plan))
    total = sum(len(plan[step]) for step in range(steps))
    count = _Count(total if autoencoder is None else 2 * total, progress)
    views: list[BatchView] = []
    # Load the batches, and make each sample again to explain it.
    others: list[tuple[Entry, ...]] = [()] * steps
    if encoded is not None:
        encoded.load_state_dict({"epoch": epoch})
        others = [describe_batch(batch) for batch in islice(encoded, steps)]
    loader.load_state_dict({"epoch": epoch})
    try:
        for step, given in enumerate(islice(loader, steps)):
            batch = {key: value.cpu() if isinstance(value, torch.Tensor) else value for key, value in given.items()}
            explain = partial(_explain, dataset, plan, step, batch, draws)
            with _one_thread_per_core() as pool:
                samples = [count(sample) for sample in pool.map(explain, range(len(plan[step])), plan[step])]
            if autoencoder is not None:
                samples = [count(replace(sample, round_trip=autoencoder(sample.image))) for sample in samples]
            views.append(
                BatchView(
                    epoch=epoch,
                    step=step,
                    steps=len(plan),
                    seed=loader.plan.seed,
                    batch=batch,
                    entries=describe_batch(batch),
                    samples=tuple(samples),
                    encoded=others[step],
                )
            )
    finally:
        loader.load_state_dict(before)
    return tuple(views)


def previewed(loader: Loader) -> TextToImageDataset:
    """Return the dataset of a loader whose samples can be explained.

    Raises:
        ConfigError: The loader's batches are encodings, or of a user's own source.
    """
    dataset = loader.dataset
    if isinstance(dataset, TextToImageDataset):
        return dataset
    found = "encodings" if isinstance(dataset, EncodedDataset) else f"a {type(dataset).__name__}"
    way_out = "; leave out `encodings`" if isinstance(dataset, EncodedDataset) else ""
    raise ConfigError(f"preview: found a loader of {found}, expected one of images{way_out}")


class _Count:
    """Counts finished samples and reports the progress."""

    def __init__(self, total: int, show: Show | None) -> None:
        self._done, self._total, self._show = 0, total, show

    def __call__(self, sample: SampleView) -> SampleView:
        self._done += 1
        if self._show is not None:
            self._show(self._done, self._total)
        return sample


def _explain(
    dataset: TextToImageDataset,
    plan: EpochPlan,
    step: int,
    batch: Batch,
    draws: int,
    position: int,
    wanted: SampleKey,
) -> SampleView:
    """Make the sample at a position of a batch again from its key, and return how it was made."""
    trained = _trained(batch, position)
    reread, reader, key, (image, geometry) = _find_key(dataset, plan, step, position, wanted)
    row = dataset.manifest[key.index]
    caption = dataset.caption(key)
    return SampleView(
        key=key,
        id=row.id,
        original=_small(reader.any.pixels),
        geometry=geometry,
        image=_array(image if trained is None else trained),
        draws=tuple(
            draw_sample(reread, reader, key._replace(epoch=key.epoch + n, repeat=0)) for n in range(1, draws + 1)
        ),
        caption=caption,
        captions=len(row.captions),
        tokens=_tokens(dataset, caption.text),
        round_trip=None,
        stands_in_for=None if key == wanted else dataset.manifest[wanted.index].id,
        repeatable=trained is None or torch.equal(image, trained),
    )


def _trained(batch: Batch, position: int) -> torch.Tensor | None:
    """Return one image of a batch, uint8 (3, H, W); None where the model transform returns no images."""
    images = batch.get("img")
    if not (isinstance(images, torch.Tensor) and images.ndim == 4 and images.shape[1] == 3):
        return None
    if images.dtype == torch.uint8:
        return images[position]  # (3, H, W)
    return to_uint8(images[position])


def _find_key(
    dataset: TextToImageDataset, plan: EpochPlan, step: int, position: int, wanted: SampleKey
) -> tuple[TextToImageDataset, KeptReader, SampleKey, tuple[torch.Tensor, Geometry]]:
    """Find the key at a position of a batch: the planned one, or the first of its stand-ins that can be read.

    Returns:
        The dataset with a reader that has decoded the key's image, this reader, the key, and its image and geometry.
    """
    for key in chain([wanted], plan.stand_ins(step, position)):
        reader = KeptReader(dataset.reader, dataset.manifest[key.index].image)
        reread = dataset.with_reader(reader).with_cache(
            # An empty pixel cache: with one, images are decoded at another scale.
            None if dataset.pixel_cache is None else PixelCache(max_images=0)
        )
        try:
            return reread, reader, key, reread.image(key)
        except ImageError as error:
            last = error
    raise last


def draw_sample(reread: TextToImageDataset, reader: KeptReader, key: SampleKey) -> Draw:
    """Sample an image once, at the displayed size.

    Args:
        reread: A dataset that reads with `reader`.
        reader: Has the decoded image.
        key: The sample's key.
    """
    transform = reread.img_transform
    if transform.custom:  # callables may depend on the size
        image, geometry = reread.image(key)
    else:
        # Sampled at the displayed size: at full size it would take most of a preview's time.
        seed = reread.seed if key.seed is None else key.seed
        geometry = transform.draw(reader.any.original_size, key, seed)
        small = replace(geometry, target_size=_within(geometry.target_size))
        image = transform.finish(transform.resample(reader.any.pixels, small), small, key, seed)
    return Draw(epoch=key.epoch, image=_small(_array(image)), geometry=geometry, text=reread.caption(key).text)


def _within(size: tuple[int, int]) -> tuple[int, int]:
    """Return (H, W) with the same aspect ratio, at most `_SHOWN` per side; never enlarged."""
    scale = min(1.0, _SHOWN / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _tokens(dataset: TextToImageDataset, text: str) -> tuple[TokenView, ...]:
    transform = dataset.model_transform
    views = []
    for field in transform.fields if isinstance(transform, TokenTransform) else ():
        pieces = field.tokenizer.pieces(text, field.max_length)
        used = sum(piece.kind != "cut" for piece in pieces)
        views.append(
            TokenView(key=field.spec.key, pieces=pieces, limit=field.max_length, padding=field.max_length - used)
        )
    return tuple(views)


def _array(image: torch.Tensor) -> Pixels:
    return np.ascontiguousarray(image.cpu().permute(1, 2, 0).numpy())


def _small(pixels: Pixels) -> Pixels:
    """Copy an image at most `_SHOWN` pixels a side, so that the original can be freed."""
    image = Image.fromarray(pixels)
    image.thumbnail((_SHOWN, _SHOWN), Image.Resampling.LANCZOS, reducing_gap=1.1)
    return np.array(image)


@contextmanager
def _one_thread_per_core() -> Iterator[ThreadPoolExecutor]:
    """Yield a pool with one thread per core; torch runs single-threaded in each."""
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
