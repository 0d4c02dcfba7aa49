"""`TextToImageDataset`: the images and captions of a manifest as training samples."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from calotype.data.collate import FetchedSample
from calotype.data.pixel_cache import PixelCache
from calotype.data.repeated_epochs import RepeatedEpochs
from calotype.data.sample_source import BatchSource, PreparedSample, SampleSource
from calotype.errors import ConfigError, ImageError
from calotype.images import ImageReader, scan_sizes
from calotype.images.locks import DECODING
from calotype.images.scan import forget
from calotype.ledger import LedgerEntry
from calotype.manifest import Manifest
from calotype.models import ModelSpec, PixelsTransform, TokenTransform, Truncation
from calotype.progress import Show
from calotype.transforms import Buckets, CaptionDraw, CaptionTransform, ImageTransform
from calotype.types import Batch, Geometry, ModelTransform, Row, Sample, SampleKey, Transform

__all__ = ["TextToImageDataset"]

_OWN_KEYS = ("id", "text", "captions", "index")


class TextToImageDataset(SampleSource):
    """A map-style dataset of the images and captions of a manifest.

    `dataset[i]` is a pure function of (seed, i); index with a `SampleKey` for another epoch or bucket. Calls change no
    state except the pixel cache, so workers and threads may share or copy the dataset.

    Args:
        manifest: The rows: images and captions.
        img_transform: Crops, resizes and augments images.
        caption_transform: Makes one text from the captions of a row.
        model_transform: Tokenises and normalises. If it has `prepare` and `finish` (`calotype.types.ModelTransform`),
            the Loader copies uint8 pixels to the device and normalises there; any other callable is called on each
            sample. Defaults to `PixelsTransform`.
        reader: Reads and decodes images. Defaults to `ImageReader()`.
        buckets: Aspect buckets; None leaves the size to the image transform.
        include: Opt-in keys of a sample: `id`, `text` (the final caption), `captions` (all captions of the row),
            `index`, or the name of an extra column.
        seed: Seeds every random transform; the seed of a `SampleKey` overrides it.
        pixel_cache: Caches decoded pixels; None decodes each time.
        spec: Facts of the model, if known.

    Raises:
        ConfigError: `include` has a key that the data lacks.
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
        self._fetched_sizes: npt.NDArray[np.int32] | None = None
        """(N, 2), (height, width) of images by URL, which the plan is made with; 0: not fetched. None before a scan."""
        if len(manifest):
            extras = manifest[0].extra
            for key in self.include:
                if key not in _OWN_KEYS and key not in extras:
                    raise ConfigError(
                        f"include: found {key!r}, expected some of {', '.join(_OWN_KEYS)} "
                        f"or an extra column ({', '.join(extras) or 'this data has none'})"
                    )

    def __repr__(self) -> str:
        about = [f"{self.manifest}", self.spec.name if self.spec is not None else type(self.model_transform).__name__]
        if self.buckets is not None:
            height, width = self.buckets.resolution
            about.append(f"{len(self.buckets.sizes)} buckets of {width}×{height} pixels or less")
        about.append(f"seed {self.seed}")
        return f"{type(self).__name__}({', '.join(about)},\n    {self.img_transform},\n    {self.caption_transform})"

    def __len__(self) -> int:
        return len(self.manifest)

    def prepare(self, key: int | SampleKey) -> PreparedSample:
        """Return one sample before `finish`, as it is copied to the device: with uint8 pixels.

        Raises:
            ImageError: The image can't be read.
            IndexError: There is no such sample.
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

    def for_batch(self, keys: Sequence[SampleKey]) -> BatchSource:
        return BatchSource(self._fetching(keys).prepare, self.only_reads)

    def __getitems__(self, keys: Sequence[int | SampleKey]) -> list[FetchedSample]:
        return SampleSource.__getitems__(self._fetching([self.checked(key) for key in keys]), keys)

    def _fetching(self, keys: Sequence[SampleKey]) -> TextToImageDataset:
        """Begin to fetch what these samples need by URL and the pixel cache lacks; return a dataset that reads that."""
        if not self.manifest.has_urls:
            return self
        rows = [(self.manifest[key.index], key) for key in keys]
        refs = [row.image for row, key in rows if not self._is_cached(row, key)]
        return self.with_reader(self.reader.ahead(refs))

    @property
    def starts_in_trainer(self) -> bool:
        """Whether all code that prepares samples is calotype's."""
        ours = type(self.model_transform).__module__.startswith("calotype.")
        return ours and not (self.img_transform.custom or self.caption_transform.custom)

    @property
    def lookahead(self) -> int:
        return 2 * self.reader.fetcher.connections if self.manifest.has_urls else 0

    def included(self, row: Row, index: int, text: str) -> dict[str, Any]:
        """Return the opt-in keys of one sample.

        Args:
            row: The sample's row.
            index: Index of the row.
            text: The final caption.
        """
        own = {"id": row.id, "text": text, "captions": list(row.captions), "index": index}
        return {name: own[name] if name in own else row.extra.get(name) for name in self.include}

    def finish(self, batch: Mapping[str, Any]) -> Batch:
        """Apply the model transform's `finish` to a sample or a batch, on the device of its tensors."""
        transform = self.model_transform
        return transform.finish(batch) if isinstance(transform, ModelTransform) else dict(batch)

    def sample(self, key: int | SampleKey) -> Sample:
        """Return the input of the model transform: uint8 image (3, H, W), final caption, id and geometry.

        Raises:
            ImageError: The image can't be read.
            IndexError: There is no such sample.
        """
        key = self.checked(key)
        return self._sample(self.manifest[key.index], key)[0]

    def caption(self, key: int | SampleKey) -> CaptionDraw:
        """Return the final caption and how it was made. Does not read the image."""
        key = self.checked(key)
        return self._caption(self.manifest[key.index], key)

    def image(self, key: int | SampleKey) -> tuple[torch.Tensor, Geometry]:
        """Return (the final image, uint8 (3, H, W); its geometry). The pixel cache may share it: do not modify it.

        Raises:
            ImageError: The image can't be read.
            IndexError: There is no such sample.
        """
        key = self.checked(key)
        return self._image(self.manifest[key.index], key)

    def _sample(self, row: Row, key: SampleKey) -> tuple[Sample, CaptionDraw]:
        image, geometry = self._image(row, key)
        caption = self._caption(row, key)
        return Sample(image=image, text=caption.text, id=row.id, geometry=geometry), caption

    def _caption(self, row: Row, key: SampleKey) -> CaptionDraw:
        return self.caption_transform.draw(row.captions, key, self._seed(key))

    def _image(self, row: Row, key: SampleKey) -> tuple[torch.Tensor, Geometry]:
        with DECODING.held():  # limits the memory of whole decoded images; released once the image is resampled
            image, geometry = self._resampled(row, key)  # uint8 (3, h, w)
        image = self.img_transform.finish(image, geometry, key, self._seed(key))
        size = (image.shape[1], image.shape[2])
        if size != geometry.target_size:  # a transform of callables alone decides the size itself
            geometry = replace(geometry, target_size=size)
        return image, geometry

    def _resampled(self, row: Row, key: SampleKey) -> tuple[torch.Tensor, Geometry]:
        """Return the cropped and resized image, uint8 (3, h, w), and its geometry, using the pixel cache.

        With a fixed geometry the cache has resampled images, else whole decoded ones.
        """
        # Look the image up in the cache.
        cache, transform = self.pixel_cache, self.img_transform
        cache_key = None if cache is None else self._cache_key(row, key)
        if cache is not None and (found := cache.get(cache_key)) is not None:
            pixels, original_size = found
            geometry = self._geometry(original_size, key)
            if transform.fixed_geometry:
                return pixels, geometry
            return transform.resample(pixels.numpy(), geometry), geometry
        # Else decode it, at a smaller scale if the whole image is not to be cached.
        keep_whole = cache is not None and not transform.fixed_geometry
        decoded = self.reader.read(
            row.image, need=None if keep_whole else lambda size: transform.needed_size(self._geometry(size, key))
        )
        self._check_size(row, key, decoded.original_size)
        geometry = self._geometry(decoded.original_size, key)
        # Resample it, and cache it before or after.
        if cache is None:
            return transform.resample(decoded.pixels, geometry), geometry
        if keep_whole:
            cache.put(cache_key, torch.from_numpy(decoded.pixels), decoded.original_size)
            return transform.resample(decoded.pixels, geometry), geometry
        return cache.put(cache_key, transform.resample(decoded.pixels, geometry), decoded.original_size), geometry

    def _check_size(self, row: Row, key: SampleKey, size: tuple[int, int]) -> None:
        """Refuse an image by URL that has changed since its size was fetched, and fits the plan no longer."""
        if self._fetched_sizes is None or self.buckets is None or row.image.url is None:
            return
        then, now = tuple(self._fetched_sizes[key.index].tolist()), size
        if not all(then) or now == then:
            return
        forget(row.image)
        sizes = np.array([then, now])  # (2, 2)
        buckets = self.buckets.assign(sizes)  # (2,)
        upscale = self.buckets.upscale(sizes, buckets)  # (2,)
        if buckets[0] != buckets[1] or upscale[1] > max(upscale[0], self.buckets.max_upscale):
            raise ImageError(
                row.image.name,
                f"its URL had {then[1]}×{then[0]} px when its size was fetched, and has {now[1]}×{now[0]} now; the "
                "next run fetches its size again",
            )

    def _is_cached(self, row: Row, key: SampleKey) -> bool:
        return self.pixel_cache is not None and self._cache_key(row, key) in self.pixel_cache

    def _cache_key(self, row: Row, key: SampleKey) -> Hashable:
        """Return the cache key of an image. Has no row index: datasets of other rows may share the cache."""
        whole = (row.image, self.reader.options)
        if not self.img_transform.fixed_geometry:
            return whole
        size: Hashable = key.size
        if size is None and self.buckets is not None:
            size = tuple(self.buckets.sizes)  # the image determines which of them
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
        """(height, width) of each bucket in pixels; `(None,)` without buckets."""
        return (None,) if self.buckets is None else self.buckets.sizes

    def scan(
        self,
        *,
        threads: int = 4,
        progress: Show | None = None,
        headers: npt.NDArray[np.integer[Any]] | None = None,
    ) -> tuple[npt.NDArray[np.int32], list[LedgerEntry]]:
        """Assign each row to a bucket, by the size in the data file or in the image's header.

        Args:
            threads: Number of threads that read headers.
            progress: Called with (done, total) while headers are read.
            headers: int (N, 2), (height, width) of each image from its header, 0 if it can't be read. For callers that
                have read the headers already; None reads those of rows without a size.

        Returns:
            int32 (N,), the index into `buckets.sizes` of each row (all 0 without buckets), or -1 if its image can't be
            read; and ledger entries: for each image whose header was tried here and can't be read, and for each that
            has to be enlarged by more than `buckets.max_upscale`.
        """
        if self.buckets is None:
            return np.zeros(len(self), dtype=np.int32), []
        # Complete the sizes of the data file from the headers.
        sizes = self.manifest.sizes().copy()  # (N, 2)
        unknown = np.flatnonzero((sizes <= 0).any(axis=1))
        entries = []
        if headers is not None:
            sizes[unknown] = headers[unknown]
        elif len(unknown):
            refs = self.manifest.refs(unknown)
            sizes[unknown], failures = scan_sizes(refs, self.reader, threads=threads, progress=progress)
            for number, error in failures:
                id = self.manifest[int(unknown[number])].id
                entries.append(LedgerEntry(kind="unreadable", id=id, reason=str(error)))
        if self.manifest.has_urls:
            self._fetched_sizes = np.zeros_like(sizes)
            self._fetched_sizes[unknown] = sizes[unknown]
        # Assign the buckets, and report images that are too small for theirs.
        known = (sizes > 0).all(axis=1)  # (N,)
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
        """Return a copy of the dataset with only these rows, in this order."""
        copied = copy.copy(self)
        copied.manifest = self.manifest.select(indices)
        copied._repeated_epochs = RepeatedEpochs()
        copied._fetched_sizes = None
        return copied

    def with_cache(self, cache: PixelCache | None) -> Self:
        """Return a copy of the dataset with another pixel cache, or none."""
        copied = copy.copy(self)
        copied.pixel_cache = cache
        return copied

    def with_device_cache(self, device: torch.device) -> Self:
        """Return a copy of the dataset that caches its cropped images on the device.

        Raises:
            ConfigError: The crop is random, or the image transform has callables that see the whole image.
        """
        if not self.img_transform.fixed_geometry:
            raise ConfigError(
                "device_cache: found an image transform whose crop is sampled anew each time (random_crop, rotate or a "
                "callable); expected a fixed geometry, since what is kept on the device is the cropped image. "
                "`pixel_cache` keeps whole decoded images in memory instead"
            )
        return self.with_cache(PixelCache(device=device))

    def with_reader(self, reader: ImageReader) -> TextToImageDataset:
        """Return a copy of the dataset with another reader."""
        copied = copy.copy(self)
        copied.reader = reader
        return copied

    def preview(self, **options: Any) -> Any:
        """Deprecated, removed in 0.2: use `calotype.preview(dataset)`, which has the same options."""
        return importlib.import_module("calotype.previews").preview(self, **options)

    @property
    def tokenises(self) -> bool:
        """Whether the model transform has tokenizers, which may truncate captions."""
        return isinstance(self.model_transform, TokenTransform)

    def truncated(self, text: str) -> dict[str, Truncation]:
        """Return name → truncation for each tokenizer that truncates the text; empty if none does."""
        transform = self.model_transform
        return transform.truncated(text) if isinstance(transform, TokenTransform) else {}
