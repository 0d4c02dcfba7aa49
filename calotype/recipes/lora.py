"""What is trained: low-rank adapters beside the frozen transformer (Hu et al., 2021), or the transformer itself."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from calotype.encodings.frozen import FrozenModels
from calotype.errors import ConfigError, MissingDependencyError
from calotype.recipes.networks import Network, pipeline_class
from calotype.recipes.options import TrainOptions

__all__ = ["LORA_FILE", "make_trainable", "save_result", "trained"]

LORA_FILE = "pytorch_lora_weights.safetensors"
"""What `load_lora_weights(folder)` looks for."""


def make_trainable(transformer: Any, network: Network, options: TrainOptions, *, seed: int) -> None:
    """Freezes what is not trained, adds adapters where they are; what is trained is float32 from here on.

    Args:
        transformer: As it was loaded.
        network: Its row.
        options: `method`, and the adapters'.
        seed: Of the adapters' beginning. No global generator is left changed.

    Raises:
        ConfigError: No layer's name ends as `lora_targets` says.
        MissingDependencyError: peft is not installed.
    """
    if options.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    if options.method == "full":
        transformer.requires_grad_(True).float()
        return
    transformer.requires_grad_(False)
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
            transformer.add_adapter(config)
        except ValueError as error:
            layers = sorted(
                {name.split(".", 2)[-1] for name, layer in transformer.named_modules() if _adaptable(layer)}
            )
            raise ConfigError(
                f"train.lora_targets: no layer's name ends in one of {targets}; the layers are {', '.join(layers)}"
            ) from error
    for parameter in trained(transformer).values():
        parameter.data = parameter.data.float()


def trained(transformer: Any) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: parameter for name, parameter in transformer.named_parameters() if parameter.requires_grad}


def save_result(transformer: Any, models: FrozenModels, options: TrainOptions, folder: Path) -> Path:
    """Writes what was trained as diffusers loads it; returns the file (LoRA) or the folder (`full`).

    A LoRA is `pytorch_lora_weights.safetensors`, for `pipe.load_lora_weights(folder)`; a whole transformer is the
    folder `transformer`, for `from_pretrained(…, subfolder="transformer")`.
    """
    if options.method == "full":
        transformer.save_pretrained(folder / "transformer")
        return folder / "transformer"
    pipeline_class(models).save_lora_weights(
        folder,
        transformer_lora_layers=_peft().get_peft_model_state_dict(transformer),
        transformer_lora_adapter_metadata=_metadata(transformer.peft_config["default"].to_dict()),
        weight_name=LORA_FILE,
    )
    return folder / LORA_FILE


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
