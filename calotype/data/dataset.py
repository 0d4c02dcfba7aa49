"""TextToImageDataset: rows become samples."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from calotype.data.pixel_cache import PixelCache
from calotype.data.sample_source import PreparedSample, SampleSource
from calotype.errors import ConfigError
from calotype.images import ImageReader, scan_sizes
from calotype.images.locks import DECODING
from calotype.ledger import LedgerEntry
from calotype.manifest import Manifest
from calotype.models import ModelSpec, PixelsTransform, TokenTransform, Truncation
from calotype.progress import Show
from calotype.transforms import Buckets, CaptionDraw, CaptionTransform, ImageTransform
from calotype.types import Batch, Geometry, ModelTransform, Row, Sample, SampleKey, Transform

__all__ = ["TextToImageDataset"]

_OWN_KEYS = ("id", "text", "captions", "index")


class TextToImageDataset(SampleSource):
    """Images and captions as training samples: a plain map-style dataset.

    `dataset[i]` is a pure function of (seed, i): ask with a `SampleKey` for another epoch or bucket. Nothing in it
    changes between calls, so that workers and threads can share or copy it as they like.

    Args:
        manifest: Which images, which captions.
        img_transform: Geometry and colour.
        caption_transform: From a row's captions to one text.
        model_transform: Tokenises and normalises. One with `prepare` and `finish` (`calotype.types.ModelTransform`)
            lets the Loader carry uint8 pixels and normalise on the device; any other callable is simply called.
        reader: Turns image references into pixels.
        buckets: Aspect buckets; None leaves the size to the image program.
        include: Opt-in keys: `id`, `text` (the final caption), `captions` (all of the row's), `index`, or the name
            of any extra column.
        seed: Of every draw; a key's own seed goes before it.
        pixel_cache: Keeps decoded pixels in memory.
        spec: Facts of the model it is for, where known.
    """

    manifest: Manifest

    def __init__(
        self,
        manifest: Manifest,
        *,
        img_transform: ImageTransform,
        caption_transform: CaptionTransform,
        model_transform: Transform | None = None,
        reader: ImageReader | None = None,
        buckets: Buckets | None = None,
        include: Sequence[str] = (),
        seed: int = 0,
        pixel_cache: PixelCache | None = None,
        spec: ModelSpec | None = None,
    ) -> None:
        self.manifest = manifest
        self.img_transform = img_transform
        self.caption_transform = caption_transform
        self.model_transform: Transform = model_transform if model_transform is not None else PixelsTransform()
        self.reader = reader if reader is not None else ImageReader()
        self.buckets = buckets
        self.include = tuple(include)
        self.seed = seed
        self.pixel_cache = pixel_cache
        self.spec = spec
        if len(manifest):
            extras = manifest[0].extra
            for key in self.include:
                if key not in _OWN_KEYS and key not in extras:
                    raise ConfigError(
                        f"include: found {key!r}, expected some of {', '.join(_OWN_KEYS)} "
                        f"or an extra column ({', '.join(extras) or 'this data has none'})"
                    )

    def __len__(self) -> int:
        return len(self.manifest)

    def prepare(self, key: int | SampleKey) -> PreparedSample:
        """One sample with its pixels still uint8: what travels to the device.

        Raises:
            ImageError: The image can't be read.
        """
        key = self.checked(key)
        row = self.manifest[key.index]
        sample, caption = self._sample(row, key)
        transform = self.model_transform
        out = PreparedSample(transform.prepare(sample) if isinstance(transform, ModelTransform) else transform(sample))
        out.update(self.included(row, key.index, caption.text))
        if self.tokenises:
            out.caption = caption
        return out

    def included(self, row: Row, index: int, text: str) -> dict[str, Any]:
        """The opt-in keys of one sample."""
        own = {"id": row.id, "text": text, "captions": list(row.captions), "index": index}
        return {name: own[name] if name in own else row.extra.get(name) for name in self.include}

    def finish(self, batch: Mapping[str, Any]) -> Batch:
        """The rest of the model transform, for a sample or a whole batch, wherever its tensors are."""
        transform = self.model_transform
        return transform.finish(batch) if isinstance(transform, ModelTransform) else dict(batch)

    def sample(self, key: int | SampleKey) -> Sample:
        """What the model transform gets: uint8 image, final caption, id and geometry."""
        key = self.checked(key)
        return self._sample(self.manifest[key.index], key)[0]

    def caption(self, key: int | SampleKey) -> CaptionDraw:
        """The final caption and how it came about. Reads no pixels."""
        key = self.checked(key)
        return self._caption(self.manifest[key.index], key)

    def image(self, key: int | SampleKey) -> tuple[torch.Tensor, Geometry]:
        """The final image, uint8 (3, H, W), and its geometry. It may be the pixel cache's own: don't write to it."""
        key = self.checked(key)
        return self._image(self.manifest[key.index], key)

    def _sample(self, row: Row, key: SampleKey) -> tuple[Sample, CaptionDraw]:
        image, geometry = self._image(row, key)
        caption = self._caption(row, key)
        return Sample(image=image, text=caption.text, id=row.id, geometry=geometry), caption

    def _caption(self, row: Row, key: SampleKey) -> CaptionDraw:
        return self.caption_transform.draw(row.captions, key, self._seed(key))

    def _image(self, row: Row, key: SampleKey) -> tuple[torch.Tensor, Geometry]:
        with DECODING.held():  # until the whole image is not needed any more
            image, geometry = self._resampled(row, key)
        image = self.img_transform.finish(image, geometry, key, self._seed(key))
        size = (image.shape[1], image.shape[2])
        if size != geometry.target_size:  # a program of callables alone decides the size itself
            geometry = replace(geometry, target_size=size)
        return image, geometry

    def _resampled(self, row: Row, key: SampleKey) -> tuple[torch.Tensor, Geometry]:
        """Cropped and resized, through the cache. A fixed geometry caches what comes out, any other what goes in."""
        cache, program = self.pixel_cache, self.img_transform
        cache_key = None if cache is None else self._cache_key(row, key)
        if cache is not None and (found := cache.get(cache_key)) is not None:
            pixels, original_size = found
            geometry = self._geometry(original_size, key)
            if program.fixed_geometry:
                return pixels, geometry
            return program.resample(pixels.numpy(), geometry), geometry
        keep_whole = cache is not None and not program.fixed_geometry
        decoded = self.reader.read(
            row.image, need=None if keep_whole else lambda size: program.needed_size(self._geometry(size, key))
        )
        geometry = self._geometry(decoded.original_size, key)
        if cache is None:
            return program.resample(decoded.pixels, geometry), geometry
        if keep_whole:
            cache.put(cache_key, torch.from_numpy(decoded.pixels), decoded.original_size)
            return program.resample(decoded.pixels, geometry), geometry
        return cache.put(cache_key, program.resample(decoded.pixels, geometry), decoded.original_size), geometry

    def _cache_key(self, row: Row, key: SampleKey) -> Hashable:
        """What the pixels in the cache are of: never a row's number, since datasets of other rows share the cache."""
        whole = (row.image, self.reader.options)
        if not self.img_transform.fixed_geometry:
            return whole
        size: Hashable = key.size
        if size is None and self.buckets is not None:
            size = tuple(self.buckets.sizes)  # which of them depends on the image
        return *whole, self.img_transform.resampling, size

    def _geometry(self, original_size: tuple[int, int], key: SampleKey) -> Geometry:
        if key.size is None and self.buckets is not None:
            bucket = int(self.buckets.assign(np.array([original_size]))[0])
            key = key._replace(size=self.buckets.sizes[bucket])
        return self.img_transform.draw(original_size, key, self._seed(key))

    def _seed(self, key: SampleKey) -> int:
        return self.seed if key.seed is None else key.seed

    @property
    def bucket_sizes(self) -> Sequence[tuple[int, int] | None]:
        """The (height, width) of each bucket."""
        return (None,) if self.buckets is None else self.buckets.sizes

    def scan(
        self,
        *,
        threads: int = 4,
        progress: Show | None = None,
        headers: npt.NDArray[np.integer[Any]] | None = None,
    ) -> tuple[npt.NDArray[np.int32], list[LedgerEntry]]:
        """The bucket of every row, from the sizes the data file gives or the images' headers.

        Args:
            threads: How many headers to read at once.
            progress: Called with (done, total) as headers are read.
            headers: (N, 2), the (height, width) that the images' headers give, 0 where they can't be read, for
                whoever has read them already.

        Returns:
            int32 (N,) with the index into `buckets.sizes` of each row (all 0 without buckets), -1 for images that
            can't be read; and a ledger entry for each of those and for each one that has to be enlarged further
            than `buckets.max_upscale`.
        """
        if self.buckets is None:
            return np.zeros(len(self), dtype=np.int32), []
        sizes = self.manifest.sizes().copy()
        unknown = np.flatnonzero((sizes <= 0).any(axis=1))
        entries = []
        if headers is not None:
            sizes[unknown] = headers[unknown]
        elif len(unknown):
            refs = self.manifest.refs(unknown)
            sizes[unknown], failures = scan_sizes(refs, self.reader, threads=threads, progress=progress)
            for place, error in failures:
                id = self.manifest[int(unknown[place])].id
                entries.append(LedgerEntry(kind="unreadable", id=id, reason=str(error)))
        known = (sizes > 0).all(axis=1)
        assigned = np.full(len(self), -1, dtype=np.int32)
        assigned[known] = self.buckets.assign(sizes[known])
        upscale = np.zeros(len(self))
        upscale[known] = self.buckets.upscale(sizes[known], assigned[known])
        for index in np.flatnonzero(upscale > self.buckets.max_upscale).tolist():
            height, width = self.buckets.sizes[assigned[index]]
            entries.append(
                LedgerEntry(
                    kind="upscaled",
                    id=self.manifest[index].id,
                    reason=f"{sizes[index, 1]}×{sizes[index, 0]} px is enlarged {upscale[index]:.2f}× "
                    f"to fill the bucket of {width}×{height}",
                )
            )
        return assigned, entries

    def select(self, indices: Sequence[int]) -> TextToImageDataset:
        """The same dataset with these rows alone, in this order."""
        copied = copy.copy(self)
        copied.manifest = self.manifest.select(indices)
        return copied

    def with_cache(self, cache: PixelCache | None) -> Self:
        """The same dataset with another pixel cache, or none."""
        copied = copy.copy(self)
        copied.pixel_cache = cache
        return copied

    def with_device_cache(self, device: torch.device) -> Self:
        """The same dataset, which keeps its cropped images on the device.

        Raises:
            ConfigError: The crop is drawn anew each time.
        """
        if not self.img_transform.fixed_geometry:
            raise ConfigError(
                "device_cache: found an image program whose crop is drawn anew each time (random_crop, rotate or a "
                "callable); expected a fixed geometry, since what is kept on the device is the cropped image. "
                "`pixel_cache` keeps whole decoded images in memory instead"
            )
        return self.with_cache(PixelCache(device=device))

    def with_reader(self, reader: ImageReader) -> TextToImageDataset:
        """The same dataset with another reader."""
        copied = copy.copy(self)
        copied.reader = reader
        return copied

    def preview(self, **options: Any) -> Any:
        """Deprecated, and gone in 0.2: call `calotype.preview(dataset)`, which takes the same options."""
        return importlib.import_module("calotype.previews").preview(self, **options)

    @property
    def tokenises(self) -> bool:
        """Whether captions can be too long for something."""
        return isinstance(self.model_transform, TokenTransform)

    def truncated(self, text: str) -> dict[str, Truncation]:
        """The tokenizers that can't take the whole text, and what they cut; empty when it fits."""
        transform = self.model_transform
        return transform.truncated(text) if isinstance(transform, TokenTransform) else {}
