"""TextToImageDataset: rows become samples, and the builder that YAML and people call."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from calotype.components import check_options
from calotype.errors import ConfigError, unknown_key
from calotype.images import Downloads, Fetcher, ImageReader, scan_sizes
from calotype.ledger import Ledger, LedgerEntry
from calotype.manifest import Manifest, load_manifest
from calotype.models import (
    ModelSpec,
    PixelsTransform,
    TokenTransform,
    Truncation,
    build_model_transform,
    check_model_transform,
    get_spec,
)
from calotype.pixel_cache import PixelCache
from calotype.sizing import choose_buckets, fixed_size
from calotype.transforms import Buckets, CaptionDraw, CaptionProgram, ImageProgram
from calotype.types import Batch, Geometry, ModelTransform, Row, Sample, SampleKey, Transform

if TYPE_CHECKING:
    from calotype.inspect.preview import Preview

__all__ = ["TextToImageDataset", "text_to_image_dataset"]

_OWN_KEYS = ("id", "text", "captions", "index")


class TextToImageDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Pictures and captions as training samples: a plain map-style dataset.

    `dataset[i]` is a pure function of (seed, i): ask with a `SampleKey` for another epoch or bucket. Nothing in it
    changes between calls, so that workers and threads can share or copy it as they like.

    Args:
        manifest: Which pictures, which captions.
        image_program: Geometry and colour.
        caption_program: From a row's captions to one text.
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

    def __init__(
        self,
        manifest: Manifest,
        *,
        image_program: ImageProgram,
        caption_program: CaptionProgram,
        model_transform: Transform | None = None,
        reader: ImageReader | None = None,
        buckets: Buckets | None = None,
        include: Sequence[str] = (),
        seed: int = 0,
        pixel_cache: PixelCache | None = None,
        spec: ModelSpec | None = None,
    ) -> None:
        self.manifest = manifest
        self.image_program = image_program
        self.caption_program = caption_program
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

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        """One sample as the model takes it, `img` as float in [-1, 1].

        Raises:
            ImageError: The picture can't be read. (The Loader goes on without it; here it is yours to handle.)
        """
        return self.finish(self.prepare(key))

    def prepare(self, key: int | SampleKey) -> dict[str, Any]:
        """One sample with its pixels still uint8: what travels to the device."""
        key = self.checked(key)
        row = self.manifest[key.index]
        sample = self._sample(row, key)
        transform = self.model_transform
        out = dict(transform.prepare(sample) if isinstance(transform, ModelTransform) else transform(sample))
        return out | self.included(row, key.index, sample["text"])

    def included(self, row: Row, index: int, text: str) -> dict[str, Any]:
        """The opt-in keys of one sample."""
        own = {"id": row.id, "text": text, "captions": list(row.captions), "index": index}
        return {name: own[name] if name in own else row.extra.get(name) for name in self.include}

    def finish(self, batch: Mapping[str, Any]) -> Batch:
        """The rest of the model transform, for a sample or a whole batch, wherever its tensors are."""
        transform = self.model_transform
        return transform.finish(batch) if isinstance(transform, ModelTransform) else dict(batch)

    def sample(self, key: int | SampleKey) -> Sample:
        """What the model transform gets: uint8 picture, final caption, id and geometry."""
        key = self.checked(key)
        return self._sample(self.manifest[key.index], key)

    def caption(self, key: int | SampleKey) -> CaptionDraw:
        """The final caption and how it came about. Reads no pixels."""
        key = self.checked(key)
        return self.caption_program.draw(self.manifest[key.index].captions, key, self._seed(key))

    def image(self, key: int | SampleKey) -> tuple[torch.Tensor, Geometry]:
        """The final picture, uint8 (3, H, W), and its geometry. It may be the pixel cache's own: don't write to it."""
        key = self.checked(key)
        return self._image(self.manifest[key.index], key)

    def _sample(self, row: Row, key: SampleKey) -> Sample:
        image, geometry = self._image(row, key)
        text = self.caption_program.draw(row.captions, key, self._seed(key)).text
        return Sample(image=image, text=text, id=row.id, geometry=geometry)

    def _image(self, row: Row, key: SampleKey) -> tuple[torch.Tensor, Geometry]:
        image, geometry = self._resampled(row, key)
        image = self.image_program.finish(image, geometry, key, self._seed(key))
        size = (image.shape[1], image.shape[2])
        if size != geometry.target_size:  # a program of callables alone decides the size itself
            geometry = replace(geometry, target_size=size)
        return image, geometry

    def _resampled(self, row: Row, key: SampleKey) -> tuple[torch.Tensor, Geometry]:
        """Cropped and resized, through the cache. A fixed geometry caches what comes out, any other what goes in."""
        cache, program = self.pixel_cache, self.image_program
        cache_key = (key.index, key.size if program.fixed_geometry else None)
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

    def _geometry(self, original_size: tuple[int, int], key: SampleKey) -> Geometry:
        if key.size is None and self.buckets is not None:
            bucket = int(self.buckets.assign(np.array([original_size]))[0])
            key = key._replace(size=self.buckets.sizes[bucket])
        return self.image_program.draw(original_size, key, self._seed(key))

    def checked(self, key: int | SampleKey) -> SampleKey:
        """The key that a number or a negative index stands for.

        Raises:
            IndexError: There is no such sample.
        """
        key = key if isinstance(key, SampleKey) else SampleKey(int(key))
        if not -len(self) <= key.index < len(self):
            raise IndexError(f"sample {key.index} of a dataset of {len(self)}")
        return key._replace(index=key.index % len(self))

    def _seed(self, key: SampleKey) -> int:
        return self.seed if key.seed is None else key.seed

    def scan(
        self,
        *,
        threads: int = 4,
        progress: Callable[[int, int], None] | None = None,
        headers: npt.NDArray[np.integer[Any]] | None = None,
    ) -> tuple[npt.NDArray[np.int32], list[LedgerEntry]]:
        """The bucket of every row, from the sizes the data file gives or the pictures' headers.

        Args:
            threads: How many headers to read at once.
            progress: Called with (done, total) as headers are read.
            headers: (N, 2), the (height, width) that the pictures' headers give, 0 where they can't be read, for
                whoever has read them already.

        Returns:
            int32 (N,) with the index into `buckets.sizes` of each row (all 0 without buckets), -1 for pictures that
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

    def with_cache(self, cache: PixelCache | None) -> TextToImageDataset:
        """The same dataset with another pixel cache, or none."""
        twin = copy.copy(self)
        twin.pixel_cache = cache
        return twin

    def with_reader(self, reader: ImageReader) -> TextToImageDataset:
        """The same dataset with another reader."""
        twin = copy.copy(self)
        twin.reader = reader
        return twin

    def preview(
        self,
        *,
        batch_size: int = 4,
        batches: int = 1,
        seed: int | None = None,
        epoch: int = 0,
        draws: int = 3,
        autoencoder: Any = None,
    ) -> Preview:
        """What a `Loader` over this dataset gives, and how each sample came about: shows itself in a notebook.

        `calotype.inspect.preview.preview(loader)` does the same for a loader with options of its own.

        Args:
            batch_size: The loader's; the batches depend on it.
            batches: How many, from the beginning of the epoch.
            seed: The loader's; defaults to the dataset's.
            epoch: Which.
            draws: How many later epochs to show of each picture.
            autoencoder: Shows the round trip through it: a folder or hub name of diffusers', or an `Autoencoder`.

        Returns:
            A `Preview`, whose `save` writes an `.html` page or a `.png` contact sheet.
        """
        from calotype.inspect.preview import preview_dataset

        return preview_dataset(
            self,
            batch_size=batch_size,
            batches=batches,
            seed=seed,
            epoch=epoch,
            draws=draws,
            autoencoder=autoencoder,
        )

    @property
    def tokenises(self) -> bool:
        """Whether captions can be too long for something."""
        return isinstance(self.model_transform, TokenTransform)

    def truncated(self, text: str) -> dict[str, Truncation]:
        """The tokenizers that can't take the whole text, and what they cut; empty when it fits."""
        transform = self.model_transform
        return transform.truncated(text) if isinstance(transform, TokenTransform) else {}


def text_to_image_dataset(
    model_transform: Transform | None = None,
    *,
    path: Any = None,
    source: Any = None,
    img_transform: Any = None,
    caption_transform: Any = None,
    model: str | None = None,
    tokenizers: str | Path | Mapping[str, str] | None = None,
    resolution: int | Sequence[int] | None = None,
    buckets: bool | Mapping[str, Any] | None = None,
    include: Sequence[str] = (),
    seed: int = 0,
    decode: Literal["exact", "fast"] = "exact",
    background: Sequence[int] = (255, 255, 255),
    pixel_cache: int | Mapping[str, int] | None = None,
    downloads: str | Path | Mapping[str, Any] | None = None,
    fetch: Mapping[str, Any] | None = None,
    missing_captions: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    ledger: Ledger | None = None,
    packed: bool = False,
    **manifest_options: Any,
) -> TextToImageDataset:
    """Builds the dataset from options that YAML can hold.

    Args:
        model_transform: The model's transform (`FluxTransform`, …), or None to take it from `model`.
        path: Folder, data file, glob, list of these, or the name of a hub dataset.
        source: Another name for `path`.
        img_transform: Options of `ImageProgram`, a `_component_` mapping, a callable, a list of those, or None.
        caption_transform: Options of `CaptionProgram`, a `_component_` mapping, a callable, or None.
        model: A model's name (`flux.1-dev`) or hub id; it fills in the resolution, the multiple of the sides and
            the tokenizers' lengths.
        tokenizers: Where that model's tokenizers are; None means its hub repository.
        resolution: Pictures get about this number squared of pixels. Defaults to the model's, else 1024.
        buckets: Whether pictures keep their own aspect ratio, as near as `Buckets` has one; or options for it.
            Defaults to True, unless `img_transform` says the size with `resize`.
        include: Opt-in keys of a sample, see `TextToImageDataset`.
        seed: Of every draw.
        decode: `exact`, or `fast` for JPEGs decoded at a half, a quarter or an eighth where that is enough.
        background: RGB that transparent pictures are laid on.
        pixel_cache: Keep decoded pixels of up to this many pictures in memory, or {max_images, max_bytes}.
        downloads: Keep downloaded originals in this folder, or {directory, max_images, max_bytes}.
        fetch: Options of `Fetcher` (timeout, retries, allow_private, …).
        missing_captions: `error`, `skip`, `empty`, or a text. Defaults to `error`, and to `empty` when a trigger or
            template gives every picture a text anyway.
        on_error: `raise` for a bad row of the data file, or `skip` to leave it out with a ledger entry.
        ledger: Where such entries go.
        packed: Must be False; torchtune's recipes hand it over.
        **manifest_options: Further options of `load_manifest`: columns, split, root, recursive, validation, ….

    Raises:
        ConfigError: An option is unknown, has a value that can't be, or contradicts another or the model.
        ManifestError: The data can't be read.
    """
    if packed:
        raise ConfigError("packed: found True; pictures are not packed into sequences, so expected False")
    if (path is None) == (source is None):
        raise ConfigError("path: expected one of `path` or `source` (they are two names of one option)")
    spec = get_spec(model) if model is not None else getattr(model_transform, "spec", None)
    if model_transform is None and model is not None:
        model_transform = build_model_transform(model, tokenizers=tokenizers)
    elif model is not None and isinstance(model_transform, ModelTransform):
        check_model_transform(model, model_transform)

    if buckets is False:
        img_transform, resolution = fixed_size(img_transform, resolution, spec)
    image_program = ImageProgram.from_config(img_transform, where="img_transform")
    caption_program = CaptionProgram.from_config(caption_transform, where="caption_transform")
    if missing_captions is None:
        missing_captions = "empty" if caption_program.trigger or caption_program.template else "error"

    fetch_options = _options("fetch", fetch) | {"downloads": _downloads(downloads)}
    check_options(Fetcher, (), fetch_options, where="fetch")
    _check_names(manifest_options)
    return TextToImageDataset(
        load_manifest(
            path if path is not None else source,
            missing_captions=missing_captions,
            on_error=on_error,
            ledger=ledger,
            **manifest_options,
        ),
        image_program=image_program,
        caption_program=caption_program,
        model_transform=model_transform,
        reader=ImageReader(decode=decode, background=_rgb(background), fetcher=Fetcher(**fetch_options)),
        buckets=choose_buckets(buckets, resolution, image_program, spec),
        include=include,
        seed=seed,
        pixel_cache=_pixel_cache(pixel_cache),
        spec=spec,
    )


def _downloads(option: str | Path | Mapping[str, Any] | None) -> Downloads | None:
    if option is None:
        return None
    options = _options("downloads", option if isinstance(option, Mapping) else {"directory": option})
    if "directory" not in options:
        raise ConfigError(f"downloads: found {sorted(options)}, expected a `directory` among them")
    check_options(Downloads, (), options, where="downloads")
    return Downloads(**options)


def _pixel_cache(option: int | Mapping[str, int] | None) -> PixelCache | None:
    if option is None or option == 0:
        return None
    options = _options("pixel_cache", option if isinstance(option, Mapping) else {"max_images": option})
    check_options(PixelCache, (), options, where="pixel_cache")
    return PixelCache(**options)


def _check_names(manifest_options: Mapping[str, Any]) -> None:
    """What this builder does not know itself goes to `load_manifest`; a slip is told of all the names there are."""
    theirs = inspect.signature(load_manifest).parameters
    for key in manifest_options:
        if key not in theirs:
            ours = inspect.signature(text_to_image_dataset).parameters
            raise unknown_key("dataset", key, (set(ours) | set(theirs)) - {"manifest_options"})


def _options(where: str, option: Mapping[str, Any] | None) -> dict[str, Any]:
    if option is not None and not isinstance(option, Mapping):
        raise ConfigError(f"{where}: found {option!r}, expected a mapping of options")
    return dict(option or {})


def _rgb(background: Sequence[int]) -> tuple[int, int, int]:
    if len(background) != 3 or not all(isinstance(n, int) and 0 <= n <= 255 for n in background):
        raise ConfigError(f"background: found {background!r}, expected three numbers from 0 to 255")
    red, green, blue = background
    return red, green, blue
