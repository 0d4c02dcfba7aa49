"""Builds what encodes a dataset, and the dataset of its encodings, from options or from a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from calotype.config import Config
from calotype.config.encodings import EncodingConfig
from calotype.data.build import build_dataset
from calotype.data.dataset import TextToImageDataset
from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.job import EncodeJob
from calotype.encodings.on_the_fly import OnTheFlyDataset
from calotype.encodings.options import frozen_models, open_store, variants
from calotype.encodings.store.stored_tensor import RecordCache
from calotype.progress import Show, track

__all__ = ["build_encode_job", "build_encoded", "encoded_dataset", "open_encoded"]

_USED: Final = ("dataset", "encodings", "model", "tokenizer", "tokenizers")


def encoded_dataset(
    dataset: TextToImageDataset,
    *,
    device: str | torch.device = "cpu",
    progress: Show | None = None,
    **options: Any,
) -> EncodedDataset:
    """The dataset after its model's frozen encoders, as a store has it.

    Args:
        dataset: What was encoded; its model transform plays no part.
        device: Where the frozen models run, when they run: with `on_the_fly=True`. The trainer's.
        progress: Called with (images done, images in all) while files that are not known are hashed.
        **options: Those of `EncodingConfig`, as they were when it was encoded: `model`, `store`, `dtype`, `latents`,
            `max_sequence_length`, `image_variants`, `caption_variants`; and `on_the_fly`, `in_memory`.

    Raises:
        ConfigError: An option is unknown or can't be.
        StoreError: There is no such store, or it lacks something and `on_the_fly` is not set.
    """
    known = EncodingConfig.of(options)
    return open_encoded(dataset, frozen_models(known, device), known, progress=progress)


def open_encoded(
    dataset: TextToImageDataset,
    models: FrozenModels,
    options: EncodingConfig,
    *,
    progress: Show | None = None,
) -> EncodedDataset:
    """The same, for whoever has the options' models already."""
    kind = OnTheFlyDataset if options.on_the_fly else EncodedDataset
    store = open_store(options, create=options.on_the_fly)
    encoded = kind(dataset, models, store, variants=variants(options), progress=progress)
    return encoded.with_cache(RecordCache()) if options.in_memory else encoded


def build_encode_job(config: Config | Mapping[str, Any], *, device: str = "cpu", create: bool = True) -> EncodeJob:
    """Build the job that encodes what a config's `encodings` need.

    Args:
        config: What `load_config` returned.
        device: Device of the frozen models.
        create: Make the store if it is not there.

    Raises:
        ConfigError: As for `build_dataset`; or no model is named, or it can't be had.
    """
    config = Config.parse(config, only=_USED)
    options = config.encoding_section()
    models = frozen_models(options, device)
    dataset = build_dataset(config.without_model(model=models.spec.name))
    return EncodeJob(
        dataset=dataset, models=models, store=open_store(options, create=create), variants=variants(options)
    )


def build_encoded(config: Config, *, device: str) -> EncodedDataset:
    """Build the dataset that a store has of a config's dataset.

    Args:
        config: The config.
        device: Device of the frozen models, where they run.

    Raises:
        ConfigError: As for `build_encode_job`.
        StoreError: Something is not encoded yet, and is not to be encoded on the fly.
    """
    options = config.encoding_section()
    models = frozen_models(options, device)
    dataset = build_dataset(config.without_model(model=models.spec.name))
    with track("reading files") as show:
        return open_encoded(dataset, models, options, progress=show)
