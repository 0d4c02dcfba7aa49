"""Load the network of a pipeline and its objective, as described by the model's family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.errors import ConfigError
from calotype.models.downloads import downloading, ways_to_get
from calotype.models.json_file import read_json_object
from calotype.models.network import Network
from calotype.models.objectives import Objective
from calotype.models.pipeline_folder import import_diffusers
from calotype.models.registry import get_family, list_families
from calotype.models.spec import ModelSpec

if TYPE_CHECKING:
    import torch

    from calotype.encodings.frozen import FrozenModels

__all__ = [
    "embeds_guidance",
    "empty_network",
    "load_network",
    "load_objective",
    "network_of",
    "pipeline_class",
    "pipeline_index",
    "pipeline_source",
]


def network_of(spec: ModelSpec) -> Network:
    """Return how a model's network is trained.

    Raises:
        ConfigError: This family is not trained here.
    """
    network = get_family(spec.family).network
    if network is None:
        trained = ", ".join(family.name for family in list_families() if family.network is not None)
        raise ConfigError(
            f"model: calotype train does not train {spec.name} (family {spec.family}); it trains the families "
            f"{trained}. Its encodings work under any trainer: docs/encodings.md"
        )
    return network


def embeds_guidance(models: FrozenModels) -> bool:
    """Return whether the network takes a guidance scale: by its config, or by the spec before it is downloaded."""
    file = models.folder / network_of(models.spec).component / "config.json"
    if not file.is_file():
        return models.spec.guidance_embeds
    return bool(read_json_object(file).get("guidance_embeds", False))


def load_network(models: FrozenModels, dtype: torch.dtype) -> Any:
    """Load the pipeline's transformer or U-Net, on the CPU.

    Raises:
        ConfigError: diffusers can't load it.
    """
    component = network_of(models.spec).component
    kind = getattr(import_diffusers(), pipeline_index(models)[component][1])
    return _loaded(models, component, lambda source: kind.from_pretrained(source, subfolder=component, dtype=dtype))


def empty_network(models: FrozenModels) -> Any:
    """Make the network from its configuration, with random weights; call it under `init_empty_weights`.

    Raises:
        ConfigError: diffusers can't read the configuration.
    """
    component = network_of(models.spec).component
    kind = getattr(import_diffusers(), pipeline_index(models)[component][1])
    return _loaded(models, component, lambda source: kind.from_config(kind.load_config(source, subfolder=component)))


def load_objective(models: FrozenModels) -> Objective:
    """Load the objective, with the noise schedule of the pipeline.

    Raises:
        ConfigError: The scheduler can't be loaded, or is not supported.
    """
    objective = network_of(models.spec).objective
    kind = getattr(import_diffusers(), objective.scheduler_class)
    return objective(_loaded(models, "scheduler", lambda source: kind.from_pretrained(source, subfolder="scheduler")))


def pipeline_index(models: FrozenModels) -> Mapping[str, Any]:
    """Read the pipeline's `model_index.json`."""
    return read_json_object(models.folder / "model_index.json")


def pipeline_class(models: FrozenModels) -> Any:
    """Return the diffusers class of the pipeline."""
    return getattr(import_diffusers(), models.family.pipelines[0])


def pipeline_source(models: FrozenModels, component: str) -> str:
    """Return where to load a trained component from: the pipeline's folder, else (not in the hub's cache) the hub."""
    if (models.folder / component).is_dir() or Path(models.model).expanduser().is_dir():
        return str(models.folder)
    return models.spec.hub[0] if str(models.model).lower() == models.spec.name else str(models.model)


def _loaded(models: FrozenModels, component: str, load: Callable[[str], Any]) -> Any:
    source = pipeline_source(models, component)
    local = Path(source).is_dir()
    try:
        with nullcontext() if local else downloading(source, models.spec.network_bytes):
            return load(source)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{source}: diffusers could not load its {component} ({type(error).__name__}: {error}); a whole pipeline "
            f"was expected: {ways_to_get(models.spec, network=True)}"
        ) from error
