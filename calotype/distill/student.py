"""Load the student, make it trainable (low-rank adapters, Hu et al., 2021, or all weights), and save it."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch

from calotype.captioning.transformers_backend import load_captioner
from calotype.config.distill import DistillConfig
from calotype.errors import ConfigError, MissingDependencyError
from calotype.train.lora import trained

__all__ = ["check_kind", "end_tokens", "load_student", "make_trainable", "save_student"]


def load_student(options: DistillConfig, *, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """Load (processor, model), the model on the device.

    Raises:
        CaptionError: The student can't be found, or has no chat template.
        ConfigError: Its architecture is not supported.
    """
    processor, model = load_captioner(options.student, revision=options.revision, dtype=dtype, device=device)
    check_kind(options.student, model.config)
    return processor, model


def check_kind(name: str | Path, config: Any) -> None:
    """Refuse a model that is not decoder-only.

    Raises:
        ConfigError: It is an encoder-decoder.
    """
    if config.is_encoder_decoder:
        raise ConfigError(
            f"distill.student: {name} is an encoder-decoder (as Florence-2 is); a decoder-only model was expected, "
            "such as SmolVLM, Qwen-VL, Gemma 3 or Llama 3.2 Vision"
        )


def end_tokens(processor: Any, model: Any) -> frozenset[int]:
    """Return the ids of the tokens at which `generate` stops."""
    ends = model.generation_config.eos_token_id
    ends = processor.tokenizer.eos_token_id if ends is None else ends
    return frozenset(ends if isinstance(ends, list) else [ends])


def make_trainable(model: Any, options: DistillConfig, *, device: torch.device) -> Any:
    """Return the model to train: the student, or peft's wrapper of it. Trained parameters become float32.

    Raises:
        ConfigError: No layer's name ends in one of `lora_targets`.
        MissingDependencyError: peft is not installed.
    """
    if options.gradient_checkpointing and model.supports_gradient_checkpointing:
        _checkpoint_activations(model)
    if options.method == "full":
        return model.requires_grad_(True).float().train()
    try:
        peft: Any = importlib.import_module("peft")
    except ModuleNotFoundError as error:
        raise MissingDependencyError("peft", extra="distill", purpose="for LoRA") from error
    config = peft.LoraConfig(
        r=options.lora_rank,
        lora_alpha=2 * options.lora_rank if options.lora_alpha is None else options.lora_alpha,
        target_modules="all-linear" if options.lora_targets is None else list(options.lora_targets),
    )
    with torch.random.fork_rng([device] if device.type == "cuda" else []), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses a deprecated name of transformers
        torch.manual_seed(options.seed)
        try:
            adapted = peft.get_peft_model(model, config)
        except ValueError as error:
            layers = {
                name.rsplit(".", 1)[-1] for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)
            }
            raise ConfigError(
                f"distill.lora_targets: no layer's name ends in one of {options.lora_targets}; the layers are "
                f"{', '.join(sorted(layers))}"
            ) from error
    for parameter in trained(adapted).values():
        parameter.data = parameter.data.float()
    return adapted.train()


def _checkpoint_activations(model: Any) -> None:
    """Turn on gradient checkpointing."""
    keep_less = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=keep_less)
    else:  # its name before transformers 5.23
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=keep_less)


def save_student(model: Any, processor: Any, folder: Path, *, dtype: torch.dtype) -> None:
    """Write the student as `save_pretrained` does, with the adapters merged into its weights.

    The folder has weights, configuration, generation settings, processor, tokenizer and chat template: all files that
    `AutoModelForImageTextToText` and `AutoProcessor` read. `model` is not trainable afterwards.
    """
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.to(dtype).save_pretrained(folder)
    processor.save_pretrained(folder)
