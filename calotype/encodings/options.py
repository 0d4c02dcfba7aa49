"""Makes frozen models, the store and `Variants` from the options of encodings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import torch

from calotype.config.encodings import EncodingConfig
from calotype.core.cache_folder import cache_folder
from calotype.encodings.dataset_records import Variants
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.store import EncodingStore
from calotype.errors import StoreError

__all__ = ["check_store", "frozen_models", "open_store", "variants"]

_DTYPES: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def frozen_models(
    options: EncodingConfig, device: str | torch.device = "cpu", *, network: bool = False
) -> FrozenModels:
    """Return the frozen models; none is loaded yet.

    Raises:
        ConfigError: No model is set, or it is unknown.
    """
    return FrozenModels(
        options.known_model,
        spec=options.spec,
        device=device,
        dtype=_DTYPES[options.dtype],
        max_sequence_length=options.max_sequence_length,
        latents=options.latents,
        variant=options.weights,
        network=network,
    )


def open_store(options: EncodingConfig, *, create: bool = False) -> EncodingStore:
    """Open the store.

    Raises:
        StoreError: It does not exist, and `create` is not set.
    """
    return EncodingStore(_folder(options), create=create)


def check_store(options: EncodingConfig) -> None:
    """Check that the store can be read, and written if `on_the_fly` is set. Does not create it.

    Raises:
        StoreError: It can't.
    """
    folder = _folder(options)
    if folder.exists() or not options.on_the_fly:
        EncodingStore(folder)
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if options.on_the_fly and not (there.is_dir() and os.access(there, os.W_OK)):
        raise StoreError(f"{folder}: can't be written, and on_the_fly keeps encodings there; set encodings.store")


def _folder(options: EncodingConfig) -> Path:
    return cache_folder("encodings") if options.store is None else Path(options.store).expanduser()


def variants(options: EncodingConfig) -> Variants:
    """Return the numbers of variants of continuous augmentations."""
    return Variants(image=options.image_variants, caption=options.caption_variants)
