"""Checks before any weights are loaded: packages, files, sizes, adapters, schedule, data."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights

from calotype.config.effects import check_guidance
from calotype.config.train import TrainConfig
from calotype.data.dataset import TextToImageDataset
from calotype.encodings.frozen import FrozenModels
from calotype.errors import ConfigError, MissingDependencyError
from calotype.models.component_check import check_component
from calotype.models.downloads import ways_to_get
from calotype.models.spec import ModelSpec, check_image_size
from calotype.train.lora import make_trainable
from calotype.train.networks import embeds_guidance, empty_network, load_objective, network_of, pipeline_index
from calotype.train.samples import fill_prompts
from calotype.train.schedule import check_schedule

__all__ = ["check_data", "check_model"]


def check_model(models: FrozenModels, options: TrainConfig) -> Any:
    """Refuse a model that can't be trained, or not with these options.

    Args:
        models: The frozen models; none is loaded.
        options: The `train` section.

    Returns:
        The network with its adapters, on the meta device.

    Raises:
        ConfigError: The family is not supported; a file is missing or truncated; or an option does not fit.
        MissingDependencyError: diffusers or peft is not installed.
    """
    # Check packages, options and files.
    family = network_of(models.spec)
    for package in ("diffusers", "transformers", *(("peft",) if options.method == "lora" else ())):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, extra="train", purpose="to train")
    check_guidance(options, models.spec.name, embeds=embeds_guidance(models), guides=family.negative)
    if options.sample_size is not None:
        height, width = options.sample_size
        check_image_size(models.spec, (height, width), where="train.sample_size")
    models.check_files()
    if Path(models.model).expanduser().is_dir():
        for component, weights in ((family.component, True), ("scheduler", False)):
            _check_listed(models, component)
            check_component(models.folder / component, weights=weights)

    # Make the network, the adapters and the schedule as in training, without memory for weights.
    load_objective(models)
    with init_empty_weights():
        network = empty_network(models)
        make_trainable(network, models.spec, options, seed=0)
    check_schedule("diffusers.optimization", options, section="train")
    if options.sample_size is not None:
        _check_positions(network, models.spec, options.sample_size, where="train.sample_size")
    return network


def check_data(dataset: TextToImageDataset, network: Any, options: TrainConfig, spec: ModelSpec) -> None:
    """Refuse a dataset that does not fit the network or the sample prompts.

    Args:
        dataset: The images to train on.
        network: What `check_model` returned.
        options: The `train` section.
        spec: The model.

    Raises:
        ConfigError: A bucket is too large for the network, or a sample prompt has `{trigger}` and
            `caption_transform.trigger` is not set.
    """
    fill_prompts(options.sample_prompts, dataset.caption_transform.trigger)
    for size in dataset.buckets.sizes if dataset.buckets is not None else ():
        _check_positions(network, spec, size, where="dataset.resolution: the bucket")


def _check_listed(models: FrozenModels, component: str) -> None:
    """Refuse a pipeline without a component, in its index or as a folder."""
    if pipeline_index(models).get(component, [None, None])[1] is None or not (models.folder / component).is_dir():
        raise ConfigError(
            f"{models.folder}: has no {component}, which training needs; a whole pipeline was expected: "
            f"{ways_to_get(models.spec, network=True)}"
        )


def _check_positions(network: Any, spec: ModelSpec, size: Any, *, where: str) -> None:
    """Refuse a size beyond the position embeddings of SD3's transformer."""
    positions = getattr(network.config, "pos_embed_max_size", None)
    if positions is None:
        return
    most = positions * spec.multiple
    if max(size) > most:
        raise ConfigError(
            f"{where}: {size[0]}x{size[1]} (height x width) is too large for {spec.name}, whose transformer has "
            f"positions for {most} pixels a side"
        )
