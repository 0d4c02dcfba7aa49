"""The datasets and loaders of a training run: first opened, for checks, then built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from calotype.config import Config
from calotype.config.encodings import EncodingConfig
from calotype.config.loader import LoaderConfig
from calotype.data.build import build_dataset
from calotype.data.dataset import TextToImageDataset
from calotype.encodings.build import open_encoded
from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.options import check_store, frozen_models
from calotype.errors import ConfigError
from calotype.ledger import Ledger
from calotype.loader import Loader
from calotype.loader.build import make_loader
from calotype.manifest import Manifest
from calotype.progress import track

__all__ = ["TrainingData", "TrainingLoaders", "build_loaders", "build_training", "open_training"]

_USED: Final = ("dataset", "encodings", "loader", "model", "tokenizer", "tokenizers")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """The models and datasets of a training run, opened: nothing is hashed, loaded or encoded yet."""

    options: EncodingConfig
    models: FrozenModels
    training: TextToImageDataset
    validation: TextToImageDataset | None
    """The held-out side; None where the config holds nothing out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLoaders:
    """The loaders of a training run."""

    encoded: EncodedDataset
    """The dataset of `training`."""
    training: Loader
    validation: Loader | None
    """Of the held-out side; None without one."""


def open_training(config: Config | Mapping[str, Any], *, device: str, rows: Manifest | None = None) -> TrainingData:
    """Open the frozen models and the datasets of a training run.

    What is not encoded yet is encoded on the fly, unless the config has `on_the_fly: false`.

    Args:
        config: What `load_config` returned.
        device: Device of the frozen models.
        rows: What `training_rows` returned; None loads them.

    Raises:
        ConfigError: As for `build_dataset`; or the model can't be found.
        ManifestError: The dataset can't be read.
    """
    config = Config.parse(config, only=_USED)
    if "seed" in config.extra:
        raise ConfigError(
            "config: 'seed' at the top is another trainer's; write dataset.seed: every draw follows from it"
        )
    options = config.encoding_section(on_the_fly=True)
    models = frozen_models(options, device, network=True)
    check_store(options)
    training, held_out = config.without_model(model=models.spec.name).sides()
    return TrainingData(
        options=options,
        models=models,
        training=build_dataset(training, manifest=rows),
        validation=None if held_out is None else build_dataset(held_out),
    )


def build_training(
    config: Config | Mapping[str, Any], data: TrainingData, *, ledger: Ledger | None = None
) -> tuple[Loader, Loader | None]:
    """Build the loader of a training run, and the loader of the held-out side if there is one: see `build_loaders`."""
    loaders = build_loaders(config, data, ledger=ledger)
    return loaders.training, loaders.validation


def build_loaders(
    config: Config | Mapping[str, Any], data: TrainingData, *, ledger: Ledger | None = None
) -> TrainingLoaders:
    """Build the encoded dataset of a training run and its loaders.

    Args:
        config: What `load_config` returned.
        data: What `open_training` returned.
        ledger: The entries of the dataset and of both loaders are appended to it.

    Raises:
        ConfigError: `loader` has a wrong option.
        StoreError: Something is not encoded yet, and on_the_fly is false.
    """
    config = Config.parse(config, only=_USED)
    section = config.loader if config.loader is not None else LoaderConfig()

    def encoded(dataset: TextToImageDataset) -> EncodedDataset:
        with track("reading files") as show:
            return open_encoded(dataset, data.models, data.options, progress=show)

    def loader(dataset: EncodedDataset, **more: Any) -> Loader:
        return make_loader(section, dataset, device=str(data.models.device), ledger=ledger, **more)

    dataset = encoded(data.training)
    training = loader(dataset)
    if ledger is not None and training.plan.rank == 0:
        for entry in dataset.manifest.ledger:
            ledger.append(entry)
    held_out = None if data.validation is None else encoded(data.validation)
    validation = None if held_out is None else loader(held_out, in_process=True, shuffle=False)
    return TrainingLoaders(encoded=dataset, training=training, validation=validation)
