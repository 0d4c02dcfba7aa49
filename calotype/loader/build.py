"""`build_loader`: the loader of a config, over its dataset or over the encodings of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from calotype.config import Config
from calotype.config.component import Component
from calotype.config.loader import LoaderConfig
from calotype.data.build import build_dataset
from calotype.data.dataset import TextToImageDataset
from calotype.encodings.build import build_encoded
from calotype.encodings.dataset import EncodedDataset
from calotype.loader import Loader

__all__ = ["build_loader", "make_loader"]

_USED: Final = ("dataset", "encodings", "loader", "model", "tokenizer", "tokenizers")


def build_loader(config: Config | Mapping[str, Any]) -> Loader:
    """Build the loader of a config: over the dataset, or with an `encodings` section over its encodings.

    Args:
        config: A config, as `load_config` returns it.

    Returns:
        The loader; if the `loader` section is a `_component_`, the object it builds.

    Raises:
        ConfigError: As for `build_dataset`.
        StoreError: Encodings are missing, and `encodings` does not allow encoding on the fly.
    """
    config = Config.parse(config, only=_USED)
    section = config.loader if config.loader is not None else LoaderConfig()
    if config.encodings is None:
        return make_loader(section, build_dataset(config))
    return make_loader(section, build_encoded(config, device=config.loader_device or "cpu"))


def make_loader(
    section: LoaderConfig | Component, dataset: TextToImageDataset | EncodedDataset, **options: Any
) -> Loader:
    """Make a loader.

    Args:
        section: The `loader` section of a config.
        dataset: The source of its samples.
        **options: Options of `Loader`; they override the section's.
    """
    if isinstance(section, Component):
        return cast("Loader", section.build(dataset, where="loader", **options))
    return Loader(dataset, **section.given() | options)
