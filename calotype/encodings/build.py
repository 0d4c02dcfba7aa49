"""Builds the encode job and the `EncodedDataset` of a dataset, from options or from a config."""

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
    """Return the encodings of a dataset, from a store.

    Args:
        dataset: The dataset that was encoded. Its model transform is not used.
        device: Device of the frozen models, which run only with `on_the_fly=True`: that of the trainer.
        progress: Called with (done, total) images while files whose hashes are not cached are hashed.
        **options: Options of `EncodingConfig`. Those it was encoded with: `model`, `store`, `dtype`, `latents`,
            `max_sequence_length`, `image_variants`, `caption_variants`; and `on_the_fly`, `in_memory`.

    Raises:
        ConfigError: An option is unknown, or has an invalid value.
        StoreError: The store does not exist, or records are missing and `on_the_fly` is not set.
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
    """Return the encodings of a dataset, from a store, with models that are already made.

    Args:
        dataset: The dataset that was encoded.
        models: The frozen models of the options.
        options: The config section.
        progress: Called with (done, total) images while files are hashed.

    Raises:
        ConfigError: As for `encoded_dataset`.
        StoreError: As for `encoded_dataset`.
    """
    kind = OnTheFlyDataset if options.on_the_fly else EncodedDataset
    store = open_store(options, create=options.on_the_fly)
    encoded = kind(dataset, models, store, variants=variants(options), progress=progress)
    return encoded.with_cache(RecordCache()) if options.in_memory else encoded


def build_encode_job(
    config: Config | Mapping[str, Any], *, device: str = "cpu", create: bool = True, network: bool = False
) -> EncodeJob:
    """Build the encode job of a config.

    Args:
        config: A config, as `load_config` returns it.
        device: Device of the frozen models.
        create: Whether to create the store if it does not exist.
        network: Whether the transformer or U-Net will be loaded, too: errors then advise how to get it.

    Raises:
        ConfigError: As for `build_dataset`; or no model is set, or it can't be found or downloaded.
    """
    config = Config.parse(config, only=_USED)
    options = config.encoding_section()
    models = frozen_models(options, device, network=network)
    dataset = build_dataset(config.without_model(model=models.spec.name))
    return EncodeJob(
        dataset=dataset, models=models, store=open_store(options, create=create), variants=variants(options)
    )


def build_encoded(config: Config, *, device: str) -> EncodedDataset:
    """Build the `EncodedDataset` of a config.

    Args:
        config: The config.
        device: Device of the frozen models, which run only with `on_the_fly`.

    Raises:
        ConfigError: As for `build_encode_job`.
        StoreError: The store does not exist, or records are missing and `on_the_fly` is not set.
    """
    options = config.encoding_section()
    models = frozen_models(options, device)
    dataset = build_dataset(config.without_model(model=models.spec.name))
    with track("reading files") as show:
        return open_encoded(dataset, models, options, progress=show)
