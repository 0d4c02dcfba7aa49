"""The table of networks that the recipe trains: how each is called, and which of its layers get adapters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from calotype.encodings.frozen import FrozenModels
from calotype.encodings.pipeline import import_diffusers
from calotype.errors import ConfigError
from calotype.models.spec import ModelSpec
from calotype.recipes.objectives import Denoising, FlowMatching, Objective

__all__ = [
    "Network",
    "embeds_guidance",
    "empty_network",
    "load_network",
    "load_objective",
    "network_of",
    "pipeline_class",
    "pipeline_index",
    "pipeline_source",
]

Predict = Callable[[Any, Tensor, Tensor, Mapping[str, Tensor], float | None], Tensor]
"""(network, x_t (B, C, h, w), t (B,) as the objective tells it, the batch's texts and conditioning, guidance) → its
answer (B, C, h, w)."""

_ATTENTION: Final = tuple(
    f"attn.{layer}"
    for layer in ("to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_q_proj", "add_v_proj", "to_add_out")
)
_FEED_FORWARD: Final = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One row: what is different from one family to the next."""

    predict: Predict
    """Calls the network."""
    lora_targets: tuple[str, ...]
    """Endings of the names of the layers that diffusers' DreamBooth LoRA script for the family adapts."""
    lora_format: str = "diffusers"
    """The layout of a LoRA file that most programs read for the family; docs/train.md lists them."""
    component: str = "transformer"
    """What the pipeline calls it."""
    objective: type[Objective] = FlowMatching
    """What it learns."""
    patch: int = 2
    """Latents to the side of one token."""
    conditioning: tuple[str, ...] = ()
    """What else of a batch it is told."""
    negative: bool = False
    """Whether its pipeline guides by the difference from the empty prompt: then that is encoded for samples too."""


def predict_flux(
    transformer: Any, x_t: Tensor, times: Tensor, texts: Mapping[str, Tensor], guidance: float | None
) -> Tensor:
    """FLUX.1: latents in 2 × 2 patches as tokens, their places in `img_ids`, as `FluxPipeline` packs them.

    Args:
        transformer: A `FluxTransformer2DModel`, wrapped or not.
        x_t: (B, C, h, w).
        times: (B,), 0 up to 1.
        texts: `prompt_embeds` (B, T, D), `pooled_prompt_embeds` (B, P).
        guidance: Its scale, embedded; None for a model without (schnell).
    """
    batch, channels, height, width = x_t.shape
    rows, columns = height // 2, width // 2
    tokens = x_t.view(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    places = torch.zeros(rows, columns, 3, device=x_t.device)
    places[..., 1] = torch.arange(rows, device=x_t.device)[:, None]
    places[..., 2] = torch.arange(columns, device=x_t.device)[None, :]
    embeds = texts["prompt_embeds"]
    answer: Tensor = transformer(
        hidden_states=tokens,
        timestep=times,
        guidance=None if guidance is None else torch.full_like(times, guidance),
        pooled_projections=texts["pooled_prompt_embeds"],
        encoder_hidden_states=embeds,
        txt_ids=torch.zeros(embeds.shape[1], 3, device=x_t.device),
        img_ids=places.flatten(0, 1),
        return_dict=False,
    )[0]
    return answer.view(batch, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(x_t.shape)


def predict_sd3(
    transformer: Any, x_t: Tensor, times: Tensor, texts: Mapping[str, Tensor], guidance: float | None
) -> Tensor:
    """SD3 and 3.5: the transformer makes its patches itself, and counts time to 1000."""
    answer: Tensor = transformer(
        hidden_states=x_t,
        timestep=1000.0 * times,
        encoder_hidden_states=texts["prompt_embeds"],
        pooled_projections=texts["pooled_prompt_embeds"],
        return_dict=False,
    )[0]
    return answer


def predict_sdxl(unet: Any, x_t: Tensor, times: Tensor, texts: Mapping[str, Tensor], guidance: float | None) -> Tensor:
    """SDXL: the U-Net is told the sizes as one row of six numbers beside the pooled text.

    Args:
        unet: A `UNet2DConditionModel`, wrapped or not.
        x_t: (B, C, h, w).
        times: Steps of the schedule (B,), int64.
        texts: `prompt_embeds` (B, T, D), `pooled_prompt_embeds` (B, P); `original_size`, `crop_top_left` and
            `target_size`, each (B, 2), (height, width) or (top, left) in pixels.
        guidance: Not used.
    """
    pooled = texts["pooled_prompt_embeds"]
    sizes = torch.cat([texts["original_size"], texts["crop_top_left"], texts["target_size"]], dim=1)  # (B, 6)
    answer: Tensor = unet(
        x_t,
        times,
        encoder_hidden_states=texts["prompt_embeds"],
        # float32: bfloat16 has no 1023, and would embed it as 1024
        added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes.to(pooled.device, torch.float32)},
        return_dict=False,
    )[0]
    return answer


def predict_sd(unet: Any, x_t: Tensor, times: Tensor, texts: Mapping[str, Tensor], guidance: float | None) -> Tensor:
    """SD 1.5: nothing but the text."""
    answer: Tensor = unet(x_t, times, encoder_hidden_states=texts["prompt_embeds"], return_dict=False)[0]
    return answer


_UNET: Final = ("to_k", "to_q", "to_v", "to_out.0")

_NETWORKS: Final = {
    "flux.1": Network(predict=predict_flux, lora_targets=_ATTENTION + _FEED_FORWARD),
    "sd3": Network(predict=predict_sd3, lora_targets=_ATTENTION, negative=True),
    "sdxl": Network(
        predict=predict_sdxl,
        lora_targets=_UNET,
        lora_format="kohya",
        component="unet",
        objective=Denoising,
        conditioning=("original_size", "crop_top_left", "target_size"),
        negative=True,
    ),
    "sd-1": Network(
        predict=predict_sd,
        lora_targets=_UNET,
        lora_format="kohya",
        component="unet",
        objective=Denoising,
        negative=True,
    ),
}


def network_of(spec: ModelSpec) -> Network:
    """The row of a model.

    Raises:
        ConfigError: The recipe does not train this family.
    """
    if spec.family not in _NETWORKS:
        raise ConfigError(
            f"model: calotype train does not train {spec.name} (family {spec.family}); it trains the families "
            f"{', '.join(_NETWORKS)}. Its encodings work under any trainer: docs/encodings.md"
        )
    return _NETWORKS[spec.family]


def embeds_guidance(models: FrozenModels) -> bool:
    """Whether the network is told a guidance: of FLUX.1, all but schnell."""
    if models.spec.family != "flux.1":
        return False
    file = models.folder / "transformer" / "config.json"
    if not file.is_file():  # the hub's copy may lack it yet
        return models.spec.name != "flux.1-schnell"
    return bool(json.loads(file.read_bytes()).get("guidance_embeds", False))


def load_network(models: FrozenModels, dtype: torch.dtype) -> Any:
    """The pipeline's transformer or U-Net, on the CPU.

    Raises:
        ConfigError: diffusers can't load it.
    """
    component = network_of(models.spec).component
    kind = getattr(import_diffusers(), pipeline_index(models)[component][1])
    return _loaded(models, component, lambda source: kind.from_pretrained(source, subfolder=component, dtype=dtype))


def empty_network(models: FrozenModels) -> Any:
    """The same from its configuration alone, with fresh weights: to be called where these take no memory.

    Raises:
        ConfigError: diffusers can't read the configuration.
    """
    component = network_of(models.spec).component
    kind = getattr(import_diffusers(), pipeline_index(models)[component][1])
    return _loaded(models, component, lambda source: kind.from_config(kind.load_config(source, subfolder=component)))


def load_objective(models: FrozenModels) -> Objective:
    """What the network learns, with the noise schedule of the pipeline.

    Raises:
        ConfigError: The scheduler can't be had, or wants what is not known here.
    """
    objective = network_of(models.spec).objective
    kind = getattr(import_diffusers(), objective.scheduler_class)
    return objective(_loaded(models, "scheduler", lambda source: kind.from_pretrained(source, subfolder="scheduler")))


def pipeline_index(models: FrozenModels) -> dict[str, Any]:
    """The pipeline's own description of itself, `model_index.json`."""
    index: dict[str, Any] = json.loads((models.folder / "model_index.json").read_bytes())
    return index


def pipeline_class(models: FrozenModels) -> Any:
    """The class of the whole pipeline."""
    return getattr(import_diffusers(), models.family.pipelines[0])


def pipeline_source(models: FrozenModels, component: str) -> str:
    """Where a part that is not frozen is had: the pipeline's folder, else (a hub's copy lacks it) the hub."""
    if (models.folder / component).is_dir() or Path(models.model).expanduser().is_dir():
        return str(models.folder)
    return models.spec.hub[0] if str(models.model).lower() == models.spec.name else str(models.model)


def _loaded(models: FrozenModels, component: str, load: Callable[[str], Any]) -> Any:
    source = pipeline_source(models, component)
    try:
        return load(source)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{source}: diffusers could not load its {component} ({type(error).__name__}: {error}); a whole pipeline "
            f"was expected: `hf download {models.spec.hub[0]} --local-dir FOLDER`, then model: FOLDER"
        ) from error
