"""Options that can't have an effect beside those of other sections: one table. Needs no torch.

Read with `effects.py`, which has the rules within a section and says what counts as given.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from calotype.config.buckets import BucketsConfig
from calotype.config.caption_transform import CaptionTransformConfig
from calotype.config.component import Component
from calotype.config.dataset import DatasetConfig
from calotype.config.effects import TRAIN, Rule, check_section, unused_options
from calotype.config.errors import OptionError
from calotype.config.img_transform import ImageTransformConfig
from calotype.config.loader import LoaderConfig
from calotype.errors import ConfigError

if TYPE_CHECKING:
    from calotype.config.config import Config
    from calotype.config.train import TrainConfig

__all__ = ["ACROSS", "check_config", "unused_in_training"]


def _captions(config: Config) -> CaptionTransformConfig | None:
    found = config.dataset.caption_transform if isinstance(config.dataset, DatasetConfig) else None
    return found if isinstance(found, CaptionTransformConfig) else None


def _caption_options(config: Config) -> Collection[str]:
    captions = _captions(config)
    return () if captions is None else captions.model_fields_set


def _images_vary(config: Config) -> bool:
    """Whether an image may have more outcomes than can be listed; true where code makes them."""
    if not isinstance(config.dataset, DatasetConfig):
        return True
    found = config.dataset.img_transform
    return found is not None and (not isinstance(found, ImageTransformConfig) or found.non_enumerable)


def _captions_vary(config: Config) -> bool:
    if not isinstance(config.dataset, DatasetConfig):
        return True
    captions = _captions(config)
    return config.dataset.caption_transform is not None and (captions is None or captions.non_enumerable)


def _one_size(config: Config) -> bool:
    """Whether there are no buckets."""
    dataset = config.dataset
    if not isinstance(dataset, DatasetConfig):
        return False
    resized = isinstance(dataset.img_transform, ImageTransformConfig) and dataset.img_transform.resize is not None
    return dataset.buckets is False or resized


def _caches_whole_images(config: Config) -> bool:
    dataset = config.dataset
    if not isinstance(dataset, DatasetConfig) or not dataset.pixel_cache:
        return False
    return isinstance(dataset.img_transform, ImageTransformConfig) and not dataset.img_transform.fixed_geometry


def _buckets_have_resolution(config: Config) -> bool:
    buckets = config.dataset.buckets if isinstance(config.dataset, DatasetConfig) else None
    return isinstance(buckets, BucketsConfig) and buckets.resolution is not None


def _full_batches(config: Config) -> bool:
    loader = config.loader or LoaderConfig()
    return isinstance(loader, LoaderConfig) and (loader.batch_size == 1 or loader.remainder != "short")


def _device_cache(config: Config) -> bool:
    return isinstance(config.loader, LoaderConfig) and config.loader.device_cache


ACROSS: Final[tuple[Rule[Config], ...]] = (
    Rule("dataset.tokenizers", lambda config: config.tokenizer is not None, "with tokenizer", "tokenizer"),
    Rule(
        "tokenizers",
        # beside `tokenizer` the key is a value for `${tokenizers}` to refer to, as in torchtune's configs
        lambda config: config.any_model is None and config.tokenizer is None and not _component(config),
        "without model, whose tokenizers they are",
        "model dataset tokenizer",
    ),
    Rule(
        "dataset.tokenizers",
        lambda config: config.any_model is None,
        "without model, whose tokenizers they are",
        "model",
    ),
    Rule("dataset.resolution", _buckets_have_resolution, "with buckets.resolution"),
    Rule(
        "dataset.validation_seed",
        lambda config: "validation" not in config.dataset_options() and config.distill is None,
        "without dataset.validation, the share to hold out",
        "distill",
    ),
    Rule(
        "dataset.pixel_cache",
        lambda config: config.encodings is not None,
        "with encodings, which are made from the images' files",
        "encodings",
    ),
    Rule(
        "dataset.pixel_cache",
        lambda config: config.train is not None,
        "with train, which trains on encodings",
        "train",
    ),
    Rule("dataset.pixel_cache", _device_cache, "with loader.device_cache, which keeps the cropped images", "loader"),
    Rule(
        "dataset.decode",
        _caches_whole_images,
        "with pixel_cache and a crop or rotation that changes: the cache keeps images at full size",
    ),
    Rule(
        "dataset.caption_transform.keep_parts",
        lambda config: not {"shuffle_parts", "drop_parts"} & set(_caption_options(config)),
        "without shuffle_parts or drop_parts",
    ),
    Rule(
        "dataset.caption_transform.separator",
        lambda config: not {"shuffle_parts", "drop_parts", "trigger", "template"} & set(_caption_options(config)),
        "without shuffle_parts, drop_parts, trigger or template",
    ),
    Rule(
        "loader.rank loader.world_size",
        lambda config: config.train is not None,
        "with train, whose ranks come from torchrun",
        "loader train",
    ),
    Rule("loader.on_upscale", _one_size, "without buckets: resize and buckets: false enlarge any image", "dataset"),
    Rule(
        "encodings.image_variants",
        lambda config: not _images_vary(config),
        "without random_crop, rotate, color_jitter or code in img_transform: flips are stored whole",
        "dataset",
    ),
    Rule(
        "encodings.caption_variants",
        lambda config: not _captions_vary(config),
        "without shuffle_parts, drop_parts or code in caption_transform: the other texts are stored whole",
        "dataset",
    ),
    Rule(
        "encodings.in_memory", _device_cache, "with loader.device_cache, which keeps encodings on the device", "loader"
    ),
    Rule(
        "train.loss_average",
        _full_batches,
        "with loader.batch_size: 1 or another remainder than short: no batch is short",
        "loader",
    ),
    Rule(
        "train.validation_every",
        lambda config: "validation" not in config.dataset_options(),
        "without dataset.validation, the share to hold out",
        "dataset",
    ),
)


def _component(config: Config) -> bool:
    return isinstance(config.dataset, Component)


def check_config(config: Config, only: Collection[str]) -> None:
    """Refuse options that were given and have no effect beside those of other sections.

    Args:
        config: The config.
        only: The keys at its top that were read; a rule about others says nothing.

    Raises:
        ConfigError: Names the first.
    """
    try:
        check_section(config, [rule for rule in ACROSS if set(rule.reads.split()) <= set(only)])
    except OptionError as error:
        raise ConfigError(f"{error.option}: {error}") from None


def unused_in_training(config: Config, options: TrainConfig, *, guidance: bool) -> frozenset[str]:
    """Return the options of a training that have no effect in it, whether they were given or not.

    Args:
        config: The config.
        options: Those of the training.
        guidance: Whether the network takes a guidance as an input.
    """
    across = unused_options(config, [rule for rule in ACROSS if rule.options.startswith("train.")])
    unused = unused_options(options, TRAIN) | {key.removeprefix("train.") for key in across}
    return unused if guidance else unused | {"guidance"}
