"""Errors for a `model` that is no pipeline (a single-file checkpoint, a LoRA, one network), and how to convert it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from calotype.errors import ConfigError
from calotype.models.json_file import component_config
from calotype.models.safetensors_header import header_of

__all__ = ["refuse_folder", "refuse_weights_file"]

_WEIGHTS: Final = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
_EXPECTED: Final = "a diffusers pipeline's folder or a hub name was expected"

_WHOLE: Final = (
    ("conditioner.embedders.1.", "SDXL", "StableDiffusionXLPipeline"),
    ("cond_stage_model.", "Stable Diffusion", "StableDiffusionPipeline"),
    ("text_encoders.", "SD3", "StableDiffusion3Pipeline"),
)
"""Prefix of the names of a text encoder's tensors, name of the model, and diffusers' class of its pipeline."""
_ALONE: Final = (
    ("double_blocks.", "FLUX.1", "FluxPipeline", "FluxTransformer2DModel", "black-forest-labs/FLUX.1-dev"),
    (
        "joint_blocks.",
        "SD3",
        "StableDiffusion3Pipeline",
        "SD3Transformer2DModel",
        "stabilityai/stable-diffusion-3.5-large",
    ),
)
"""Prefix of the names of a transformer's tensors, name of the model, diffusers' classes of its pipeline and its
transformer, and a hub repository with the other components."""


def refuse_weights_file(model: str | Path) -> None:
    """Refuse a file of weights, existing or not. Only the header of a safetensors file is read.

    Args:
        model: The config's `model`.

    Raises:
        ConfigError: The path is a file, or has the extension of weights; the message says what it is and how to convert
            it to a pipeline's folder.
    """
    path = Path(model).expanduser()
    if path.suffix.lower() not in _WEIGHTS:
        if path.is_file():
            raise ConfigError(f"model: {model} is a file; {_EXPECTED}")
        return
    if not path.exists():
        raise ConfigError(f"model: there is no file {model} (looked in {Path.cwd()}); {_EXPECTED}")
    if path.is_file():
        raise ConfigError(f"model: {model} {_file(path)}")


def refuse_folder(folder: Path) -> ConfigError:
    """Return the error for a folder without `model_index.json`."""
    return ConfigError(f"model: {folder} has no model_index.json{_folder(folder)}")


def _file(path: Path) -> str:
    """Describe a file of weights and how to convert it, as the end of an error message."""
    if path.suffix.lower() == ".gguf":
        return f"is a GGUF file: quantised weights of one network, for inference alone; {_EXPECTED}"
    names = _tensor_names(path) if path.suffix.lower() in (".safetensors", ".sft") else ()
    if _is_lora(names):
        return f"is a LoRA, not a model; name the base model that it was trained on ({_EXPECTED})"
    start = {name.removeprefix("model.diffusion_model.") for name in names}
    for prefix, name, pipeline in _WHOLE:
        if _any(names, prefix):
            return _single(path, f" ({name})", pipeline)
    for prefix, name, pipeline, network, hub in _ALONE:
        if _any(start, prefix):
            return (
                f"is the transformer of {name} alone, without text encoders and autoencoder; {_EXPECTED}. Convert it "
                f"once, in Python: network = diffusers.{network}.from_single_file({str(path)!r}); "
                f"diffusers.{pipeline}.from_pretrained({hub!r}, transformer=network).save_pretrained("
                f"{str(path.with_suffix(''))!r}); then model: {path.with_suffix('')}"
            )
    return _single(path, "", "StableDiffusionXLPipeline")


def _single(path: Path, kind: str, pipeline: str) -> str:
    folder = path.with_suffix("")
    others = "" if kind else " (or the class of its model's pipeline)"
    return (
        f"is a single-file checkpoint{kind}; {_EXPECTED}. Convert it once, in Python: "
        f"diffusers.{pipeline}.from_single_file({str(path)!r}).save_pretrained({str(folder)!r}){others}; "
        f"then model: {folder}"
    )


def _folder(folder: Path) -> str:
    """Describe a folder that is no pipeline, as the end of an error message."""
    there = sorted(path.name for path in folder.iterdir())
    if "adapter_config.json" in there or "pytorch_lora_weights.safetensors" in there:
        return f": it holds a LoRA, not a model; name the base model that it was trained on ({_EXPECTED})"
    if (folder.parent / "model_index.json").is_file():
        return f": it is one part of the pipeline in {folder.parent}; then model: {folder.parent}"
    config = component_config(folder)
    if (kind := config.get("_class_name")) is not None:
        return (
            f": it holds one network alone ({kind}); a whole pipeline was expected. In Python: "
            f"network = diffusers.{kind}.from_pretrained({str(folder)!r}); diffusers.DiffusionPipeline.from_pretrained("
            f"BASE, {_part(str(kind))}=network).save_pretrained(FOLDER); then model: FOLDER"
        )
    if config.get("architectures") or config.get("model_type"):
        return f": it holds a model of transformers ({config.get('model_type')}); {_EXPECTED}"
    for part in ("transformer", "unet"):
        if (kind := component_config(folder / part).get("_class_name")) is not None:
            return f": its {part} folder{_folder(folder / part)}"
    files = [name for name in there if name.lower().endswith(_WEIGHTS) and (folder / name).is_file()]
    if len(files) == 1:
        return f": it holds {files[0]}, which {_file(folder / files[0])}"
    return (
        f" (it holds {', '.join(there[:8]) or 'nothing'}); a pipeline's folder was expected, as diffusers' "
        "save_pretrained or `hf download NAME --local-dir FOLDER` makes it"
    )


def _part(kind: str) -> str:
    """Return the pipeline's component for a diffusers class."""
    if kind.startswith("Autoencoder"):
        return "vae"
    return "unet" if kind.startswith("UNet") else "transformer"


def _tensor_names(path: Path) -> tuple[str, ...]:
    """Return the names of a safetensors file's tensors; empty for any other file."""
    try:
        with path.open("rb") as file:
            found = header_of(file)
    except OSError:
        return ()
    return () if found is None else tuple(found[1])


def _is_lora(names: Iterable[str]) -> bool:
    return any(".lora_" in name or "lora_unet_" in name or "lora_te" in name for name in names)


def _any(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)
