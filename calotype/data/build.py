"""`build_dataset`: the dataset of a config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from calotype.config import Config
from calotype.config.component import Component
from calotype.config.dataset import MANIFEST_OPTIONS, DatasetConfig
from calotype.data.builder import make_dataset
from calotype.data.dataset import TextToImageDataset
from calotype.errors import ConfigError
from calotype.ledger import Ledger
from calotype.manifest import Manifest
from calotype.models.pipeline_folder import find_pipeline, which_model

__all__ = ["build_dataset"]

_USED: Final = ("dataset", "model", "tokenizer", "tokenizers")


def build_dataset(
    config: Config | Mapping[str, Any], *, manifest: Manifest | None = None, ledger: Ledger | None = None
) -> TextToImageDataset:
    """Build the dataset of a config.

    Args:
        config: A config, as `load_config` returns it.
        manifest: Rows that are already loaded; replaces the config's `path`, and the options that say which rows
            there are.
        ledger: Collects an entry for each bad row.

    Returns:
        The dataset; if the `dataset` section is a `_component_`, the object it builds.

    Raises:
        ConfigError: An option is invalid, `dataset` is missing, or `model` or `tokenizers` is set in two places.
        ManifestError: The data can't be read.
    """
    # Merge the top-level model and tokenizers into the options of the dataset.
    config = Config.parse(config, only=_USED)
    transform = None if config.tokenizer is None else config.tokenizer.build(where="tokenizer")
    section = config.dataset
    given = section.mapping if isinstance(section, Component) else config.our_dataset().given()
    options = dict(given)
    for key, value in (("model", config.model_name), ("tokenizers", config.tokenizers)):
        if value is None:
            continue
        if options.get(key) is not None:
            raise ConfigError(f"config: {key!r} stands at the top and in 'dataset' as well; keep one of them")
        options[key] = value
    options = _from_folder(options)
    if isinstance(section, Component):
        arguments = () if config.tokenizer is None else (transform,)
        return cast("TextToImageDataset", Component(options).build(*arguments, where="dataset"))
    if manifest is not None:
        options = {name: value for name, value in options.items() if name not in MANIFEST_OPTIONS}
        options |= {"path": manifest, "source": None}
    return make_dataset(DatasetConfig.of(options), transform, ledger=ledger)


def _from_folder(options: dict[str, Any]) -> dict[str, Any]:
    """Resolve a `model` that is the folder of a local pipeline: to the model's name, and to the tokenizers in it."""
    model = options.get("model")
    if not isinstance(model, str | Path) or not Path(model).expanduser().is_dir():
        return options
    folder, index = find_pipeline(str(model), spec=None, variant=None)
    spec, _ = which_model(index, folder, asked_for=str(model), spec=None)
    tokenizers = {"tokenizers": str(model)} if spec.tokenizers else {}
    return tokenizers | options | {"model": spec.name}
