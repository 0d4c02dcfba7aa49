"""The builder of encoded datasets, from options that YAML can hold."""

from __future__ import annotations

from typing import Any

import torch

from calotype.config.encodings import EncodingConfig
from calotype.dataset import TextToImageDataset
from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.on_the_fly import OnTheFlyDataset
from calotype.encodings.options import frozen_models, open_store, variants
from calotype.encodings.records import RecordCache
from calotype.progress import Show

__all__ = ["encoded_dataset", "open_encoded"]


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
        progress: Called with (pictures done, pictures in all) while files that are not known are hashed.
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
