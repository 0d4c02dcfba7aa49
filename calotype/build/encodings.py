"""What encodes a config's dataset, and the dataset of its encodings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from calotype.build.dataset import build_dataset
from calotype.config import Config
from calotype.encodings.build import open_encoded
from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.job import EncodeJob
from calotype.encodings.options import frozen_models, open_store, variants
from calotype.progress import track

__all__ = ["build_encode_job", "build_encoded"]

_USED: Final = ("dataset", "encodings", "model", "tokenizer", "tokenizers")


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
