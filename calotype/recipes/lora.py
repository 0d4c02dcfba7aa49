"""What is trained: low-rank adapters beside the frozen network (Hu et al., 2021), or the network itself."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from calotype.encodings.files import sync_folder
from calotype.encodings.frozen import FrozenModels
from calotype.errors import ConfigError, MissingDependencyError
from calotype.recipes.checkpoint import flush_files
from calotype.recipes.networks import Network, network_of, pipeline_class
from calotype.recipes.options import TrainOptions

__all__ = ["LORA_FILE", "make_trainable", "publish_result", "save_result", "trained"]

LORA_FILE = "pytorch_lora_weights.safetensors"
"""What `load_lora_weights(folder)` looks for."""


def make_trainable(weights: Any, network: Network, options: TrainOptions, *, seed: int) -> None:
    """Freezes what is not trained, adds adapters where they are; what is trained is float32 from here on.

    Args:
        weights: The network as it was loaded.
        network: Its row.
        options: `method`, and the adapters'.
        seed: Of the adapters' beginning. No global generator is left changed.

    Raises:
        ConfigError: No layer's name ends as `lora_targets` says.
        MissingDependencyError: peft is not installed.
    """
    if options.gradient_checkpointing:
        weights.enable_gradient_checkpointing()
    if options.method == "full":
        weights.requires_grad_(True).float()
        return
    weights.requires_grad_(False)
    targets = list(options.lora_targets or network.lora_targets)
    config = _peft().LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_rank if options.lora_alpha is None else options.lora_alpha,
        init_lora_weights="gaussian",
        target_modules=targets,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            weights.add_adapter(config)
        except ValueError as error:
            layers = sorted({name.split(".", 2)[-1] for name, layer in weights.named_modules() if _adaptable(layer)})
            raise ConfigError(
                f"train.lora_targets: no layer's name ends in one of {targets}; the layers are {', '.join(layers)}"
            ) from error
    for parameter in trained(weights).values():
        parameter.data = parameter.data.float()


def trained(weights: Any) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: parameter for name, parameter in weights.named_parameters() if parameter.requires_grad}


def save_result(weights: Any, models: FrozenModels, options: TrainOptions, folder: Path) -> Path:
    """Writes what was trained as diffusers loads it; returns the file (LoRA) or the folder (`full`).

    A LoRA is `pytorch_lora_weights.safetensors`, for `pipe.load_lora_weights(folder)`; a whole network is the folder
    `transformer` or `unet`, for `from_pretrained(…, subfolder="transformer")`.
    """
    component = network_of(models.spec).component
    if options.method == "full":
        weights.save_pretrained(folder / component)
        return folder / component
    layers = _peft().get_peft_model_state_dict(weights)
    if component == "unet":  # as diffusers' own scripts name them, and so what other programs read
        layers = importlib.import_module("diffusers.utils").convert_state_dict_to_diffusers(layers)
    adapters = {
        f"{component}_lora_layers": layers,
        f"{component}_lora_adapter_metadata": _metadata(weights.peft_config["default"].to_dict()),
    }
    pipeline_class(models).save_lora_weights(folder, weight_name=LORA_FILE, **adapters)
    return folder / LORA_FILE


def publish_result(weights: Any, models: FrozenModels, options: TrainOptions, folder: Path) -> Path:
    """The same, whole or not at all: an older result stays until the new one is on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-", ignore_cleanup_errors=True) as scratch:
        made = save_result(weights, models, options, Path(scratch))
        flush_files(Path(scratch))
        target = folder / made.name
        if target.is_dir():  # of an earlier run: a folder can't be renamed over another
            target.rename(Path(scratch) / "before")
        made.rename(target)
    sync_folder(folder)
    return target


def _metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    """The description by peft of the adapters, without which a loader would take alpha for the rank."""
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}


def _adaptable(layer: torch.nn.Module) -> bool:
    return isinstance(layer, torch.nn.Linear)


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ModuleNotFoundError as error:
        raise MissingDependencyError("peft", extra="train", purpose="for LoRA") from error
