"""Trainable parameters: low-rank adapters of the frozen network (Hu et al., 2021), or the whole network."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any, Final

import torch

from calotype.config.train import TrainConfig
from calotype.encodings.frozen import FrozenModels
from calotype.errors import ConfigError, MissingDependencyError
from calotype.models.spec import ModelSpec
from calotype.train.lora_file import Adapter, kohya_paths, write_lora
from calotype.train.networks import network_of
from calotype.train.start import Start

__all__ = ["LORA_FILE", "left_out", "make_trainable", "save_result", "trained"]

LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name that `load_lora_weights(folder)` expects."""

_BLOCKS: Final = re.compile(r"(.*\.)?(attentions|transformer_blocks|single_transformer_blocks)\.\d+\.(?!norm)")
"""Names of layers in a block, without its modulation."""


def make_trainable(
    weights: Any, spec: ModelSpec, options: TrainConfig, *, seed: int, start: Start | None = None
) -> None:
    """Freeze the network and add adapters, or train all of it. Trained parameters become float32.

    Args:
        weights: The network as loaded.
        spec: The model.
        options: The `train` section.
        seed: Seed of the adapters' initial weights. Global generators are unchanged.
        start: Initial weights of the adapters; its layers are the default of `lora_targets`.

    Raises:
        ConfigError: No layer's name ends in one of `lora_targets`, or a layer has no name in the file's layout.
        MissingDependencyError: peft is not installed.
    """
    if options.gradient_checkpointing:
        weights.enable_gradient_checkpointing()
    if options.method == "full":
        weights.requires_grad_(True).float()
        return
    weights.requires_grad_(False)
    network = network_of(spec)
    targets = list(options.lora_targets or (network.lora_targets if start is None else start.adapters))
    if options.lora_targets == "all":
        targets = _of_blocks(weights)
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
    if start is not None:
        start.put(weights, strength=config.lora_alpha / config.r)
    if (options.lora_format or network.lora_format) == "kohya":
        kohya_paths(_adapted(weights), weights, family=spec.family)


def trained(weights: Any) -> dict[str, torch.nn.Parameter]:
    """Return the trained parameters, by name."""
    return {name: parameter for name, parameter in weights.named_parameters() if parameter.requires_grad}


def left_out(weights: Any) -> str | None:
    """Return a message about linear layers in the network's blocks without an adapter; None if all have one."""
    adapted = _adapted(weights)
    rest = [name for name in _of_blocks(weights) if name not in adapted]
    if not rest:
        return None
    endings = sorted({re.sub(r"^.*\.\d+\.(?=[a-z])", "", name) for name in rest})
    return (
        f"note: the LoRA is on {len(adapted)} layers, as in diffusers' script; {len(rest)} more linear layers of the "
        f"blocks are left out ({', '.join(endings)}): lora_targets: all has them"
    )


def save_result(weights: Any, models: FrozenModels, options: TrainConfig, folder: Path) -> Path:
    """Write the trained parameters; return the file (LoRA) or the folder (`full`).

    A LoRA is `pytorch_lora_weights.safetensors`, for `pipe.load_lora_weights(folder)`, by default in the layout that
    most programs read for the family (see `lora_file`). A whole network is the folder `transformer` or `unet`, for
    `from_pretrained(…, subfolder="transformer")`.

    Args:
        weights: The trained network, unwrapped.
        models: The frozen models of its pipeline.
        options: The `train` section.
        folder: The target folder.
    """
    component = network_of(models.spec).component
    if options.method == "full":
        weights.save_pretrained(folder / component)
        return folder / component
    config = weights.peft_config["default"]
    layers = {name: value.detach().cpu() for name, value in _peft().get_peft_model_state_dict(weights).items()}
    strength = config.lora_alpha / config.r
    adapters = {
        name.removesuffix(".lora_A.weight"): Adapter(
            down.contiguous(), (layers[name.replace("lora_A", "lora_B")] * strength).contiguous()
        )
        for name, down in layers.items()
        if name.endswith(".lora_A.weight")
    }
    file = folder / LORA_FILE
    described = config.to_dict() | {"lora_alpha": config.r}
    write_lora(file, adapters, weights, models.spec, described, format=options.lora_format, title=_title(options))
    return file


def _adapted(weights: Any) -> set[str]:
    """Return the layers with an adapter."""
    return {name.partition(".lora_A.")[0] for name in trained(weights) if ".lora_A." in name}


def _title(options: TrainConfig) -> str:
    return Path(options.output_dir).expanduser().absolute().name


def _of_blocks(weights: Any) -> list[str]:
    """Return the linear layers (and 1 × 1 convolutions) of attention and feed-forward in the network's blocks."""
    return [
        name.removesuffix(".base_layer")
        for name, layer in weights.named_modules()
        if _BLOCKS.match(name) and ".lora_" not in name and _adaptable(layer)
    ]


def _adaptable(layer: torch.nn.Module) -> bool:
    return isinstance(layer, torch.nn.Linear) or (isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (1, 1))


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ModuleNotFoundError as error:
        raise MissingDependencyError("peft", extra="train", purpose="for LoRA") from error
