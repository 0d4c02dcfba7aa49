"""`text_to_image_dataset`: builds a `TextToImageDataset` from flat options, as in YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import pyarrow.compute as pc

from calotype.config.dataset import DatasetConfig
from calotype.config.image_files import PixelCacheConfig
from calotype.data.dataset import TextToImageDataset
from calotype.data.pixel_cache import PixelCache
from calotype.data.rows import load_rows
from calotype.data.sizing import choose_buckets, fixed_size
from calotype.errors import ConfigError
from calotype.images import ImageReader
from calotype.images.fetch import Fetcher
from calotype.ledger import Ledger
from calotype.manifest import Manifest
from calotype.manifest.options import ManifestOptions
from calotype.models import build_model_transform, check_model_transform, get_spec
from calotype.terminal import get_logger
from calotype.transforms import CaptionTransform, ImageTransform
from calotype.types import ModelTransform, Transform

__all__ = ["make_dataset", "text_to_image_dataset"]

logger = get_logger("calotype")


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
    **manifest_options: Unpack[ManifestOptions],
) -> TextToImageDataset:
    """Build a dataset from options that YAML can express.

    Args:
        model_transform: The model's transform (`FluxTransform`, …), or None to build it from `model`.
        path: Folder, data file, glob, list of these, name of a hub dataset, or a `Manifest` that is already loaded.
        source: Alias of `path`.
        img_transform: Options of `ImageTransform`, a `_component_` mapping, a callable, a list of those, or None.
        caption_transform: Options of `CaptionTransform`, a `_component_` mapping, a callable, or None.
        model: Name (`flux.1-dev`) or hub id of a model. Sets the defaults of the resolution and of the multiple of the
            sides, and the maximum token lengths.
        tokenizers: Location of the model's tokenizers. Defaults to its hub repository.
        resolution: Side in pixels of a square with the area of the images, or [height, width]. Defaults to the model's,
            else 1024.
        buckets: True assigns each image to the `Buckets` size with the closest aspect ratio, False crops all to one
            size; or options of `Buckets`. Defaults to True, unless `img_transform` sets the size with `resize`.
        include: Opt-in keys of a sample, see `TextToImageDataset`.
        seed: Seeds every random transform.
        decode: `exact`, or `fast` to decode JPEGs at 1/2, 1/4 or 1/8 of their size if that is large enough.
        background: RGB, 0 to 255, behind transparent images.
        pixel_cache: Maximum number of images whose decoded pixels are cached in memory; or {max_images, max_bytes}.
        downloads: Folder in which to cache downloaded originals; or {directory, max_images, max_bytes}.
        fetch: Options of `Fetcher` (timeout, retries, allow_private, …).
        missing_captions: `error`, `skip`, `empty`, or a text. Defaults to `error`, but to `empty` if a trigger or
            template makes a text for every image. It is still an error if then no image has a caption and the data has
            unused columns or files that may hold captions.
        on_error: What to do with a bad row of the data file: `raise`, or `skip` to leave it out with a ledger entry.
        ledger: Collects these entries.
        packed: Must be False. Accepted because torchtune's recipes pass it.
        **manifest_options: Further options of `load_manifest`: columns, split, root, recursive, validation, ….

    Raises:
        ConfigError: An option is unknown, has an invalid value, or contradicts another option or the model.
        ManifestError: The data can't be read.
    """
    if isinstance(model_transform, str | Path):
        raise ConfigError(
            f"model_transform: found {str(model_transform)!r}, expected a transform of a model; path and "
            f"model are given by name: path={str(model_transform)!r}"
        )
    options = {
        "path": path,
        "source": source,
        "img_transform": img_transform,
        "caption_transform": caption_transform,
        "model": model,
        "tokenizers": tokenizers,
        "resolution": resolution,
        "buckets": buckets,
        "include": include,
        "seed": seed,
        "decode": decode,
        "background": background,
        "pixel_cache": pixel_cache,
        "downloads": downloads,
        "fetch": fetch,
        "missing_captions": missing_captions,
        "on_error": on_error,
        "packed": packed,
        **manifest_options,
    }
    return make_dataset(DatasetConfig.of(options), model_transform, ledger=ledger)


def make_dataset(
    options: DatasetConfig, model_transform: Transform | None = None, *, ledger: Ledger | None = None
) -> TextToImageDataset:
    """Make a dataset from a parsed config section.

    Args:
        options: The section; options as for `text_to_image_dataset`.
        model_transform: As for `text_to_image_dataset`.
        ledger: As for `text_to_image_dataset`.

    Raises:
        ConfigError: As for `text_to_image_dataset`.
        ManifestError: As for `text_to_image_dataset`.
    """
    # The model: its facts, and its transform.
    model = options.model
    options.check_origin()
    spec = get_spec(str(model)) if model is not None else getattr(model_transform, "spec", None)
    if model_transform is None and model is not None:
        model_transform = build_model_transform(str(model), tokenizers=options.tokenizers)
    elif model is not None and isinstance(model_transform, ModelTransform):
        check_model_transform(str(model), model_transform)

    # The image and caption transforms.
    image_options, resolution = options.img_transform, options.resolution
    if options.buckets is False:
        image_options, resolution = fixed_size(image_options, resolution, spec)
    img_transform = ImageTransform.from_config(image_options, where="img_transform")
    caption_transform = CaptionTransform.from_config(options.caption_transform, where="caption_transform")
    manifest = load_rows(options, caption_transform, ledger=ledger)
    for sentence in _unused(options, manifest, caption_transform):
        logger.warning("%s", sentence)
    return TextToImageDataset(
        manifest,
        img_transform=img_transform,
        caption_transform=caption_transform,
        model_transform=model_transform,
        reader=ImageReader(
            decode=options.decode, background=_rgb(options.background), fetcher=Fetcher.from_config(options)
        ),
        buckets=choose_buckets(options.buckets, resolution, img_transform, spec),
        include=options.include,
        seed=options.seed,
        pixel_cache=_pixel_cache(options.pixel_cache),
        spec=spec,
    )


def _unused(options: DatasetConfig, manifest: Manifest, captions: CaptionTransform) -> Iterator[str]:
    """Yield a note for each option that has no effect with this data. With other data it may have one."""
    fetching = [name for name in ("fetch", "downloads") if getattr(options, name) is not None]
    if fetching and not manifest.has_urls:
        yield f"note: dataset.{' and '.join(fetching)}: no effect here, as no image of {manifest.root} has a URL"
    if captions.choose != "random" and (pc.max(pc.list_value_length(manifest.captions)).as_py() or 0) < 2:
        yield "note: dataset.caption_transform.choose: no effect here, as no image has more than one caption"


def _pixel_cache(option: int | PixelCacheConfig | None) -> PixelCache | None:
    if option is None or option == 0:
        return None
    return PixelCache(max_images=option) if isinstance(option, int) else PixelCache(**option.given())


def _rgb(background: Sequence[int]) -> tuple[int, int, int]:
    if len(background) != 3 or not all(isinstance(n, int) and 0 <= n <= 255 for n in background):
        raise ConfigError(f"background: found {background!r}, expected three numbers from 0 to 255")
    red, green, blue = background
    return red, green, blue
