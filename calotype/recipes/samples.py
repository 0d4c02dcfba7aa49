"""Sample images: what the network makes of some prompts so far, by its own pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.encodings.frozen import FrozenModels
from calotype.encodings.keys import text_key
from calotype.encodings.store import EncodingStore
from calotype.errors import ConfigError
from calotype.placeholders import fill_placeholders, has_placeholder
from calotype.recipes.networks import network_of, pipeline_class, pipeline_index, pipeline_source
from calotype.recipes.options import TrainOptions

__all__ = ["encode_prompts", "fill_prompts", "make_samples", "needs_empty_prompt"]


def needs_empty_prompt(models: FrozenModels) -> bool:
    """Whether the pipeline guides by the difference from the empty prompt, and does not take zeros for it (SDXL)."""
    zeros = pipeline_index(models).get("force_zeros_for_empty_prompt", False)
    return network_of(models.spec).negative and not zeros


def fill_prompts(prompts: Sequence[str], trigger: str | None) -> list[str]:
    """The prompts with the trigger where they have `{trigger}`, as captions have it.

    Raises:
        ConfigError: A prompt has `{trigger}`, and the training has no trigger.
    """
    if trigger is not None:
        return [fill_placeholders(prompt, trigger) for prompt in prompts]
    for prompt in filter(has_placeholder, prompts):
        raise ConfigError(
            f"train.sample_prompts: found {prompt!r}, and there is no caption_transform.trigger to put there"
        )
    return list(prompts)


def encode_prompts(
    models: FrozenModels, prompts: Sequence[str], store: EncodingStore | None
) -> list[dict[str, Tensor]]:
    """The texts' records, on the CPU: out of the store, else by the text encoders, which leave memory again.

    Args:
        models: The frozen models.
        prompts: As the pipeline would be given them.
        store: Of the training's encodings; what is made is kept there beside the captions.
    """
    keys = [text_key(models.text_fingerprint, prompt) for prompt in prompts]
    records: dict[bytes, dict[str, Tensor]] = {}
    if store is not None:
        rows = store.find(keys).tolist()
        records = {key: store.get(row) for key, row in zip(keys, rows, strict=True) if row >= 0}
    missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in records}
    if missing:
        made = [{k: v.to("cpu") for k, v in record.items()} for record in models.encode_texts(list(missing.values()))]
        models.release_texts()
        records |= dict(zip(missing, made, strict=True))
        if store is not None:
            with store.writer() as writer:
                writer.put(list(missing), made, kind="text")
    return [records[key] for key in keys]


def make_samples(
    weights: Any,
    models: FrozenModels,
    prompts: Sequence[Mapping[str, Tensor]],
    negative: Mapping[str, Tensor] | None,
    options: TrainOptions,
    *,
    size: tuple[int, int],
    seed: int,
    target: Path,
) -> list[Path]:
    """Writes one PNG for each prompt, from the same noise each time: `step-00000250-0.png`, ….

    The autoencoder is loaded for it and leaves memory again.

    Args:
        weights: The trained network, unwrapped.
        models: The frozen models.
        prompts: What `encode_prompts` gave.
        negative: The empty prompt's, for a pipeline that guides by the difference from it.
        options: `sample_steps` and `sample_guidance`.
        size: (height, width) in pixels.
        seed: Of the noise.
        target: The files' beginning: `samples/step-00000250`.
    """
    parameter = next(weights.parameters())
    device = parameter.device
    absent = dict.fromkeys(models.text_components)
    component = network_of(models.spec).component
    pipe = pipeline_class(models).from_pretrained(
        pipeline_source(models, component),
        dtype=parameter.dtype,
        **{component: weights},
        **absent,
        **models.family.load_options,
    )
    pipe.vae.to(device)
    pipe.set_progress_bar_config(disable=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    written = []
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=parameter.dtype == torch.bfloat16):
        for number, record in enumerate(prompts):
            texts = models.family.batch_texts([record])
            if negative is not None:
                texts |= {f"negative_{key}": value for key, value in models.family.batch_texts([negative]).items()}
            texts = {key: value.to(device, parameter.dtype) for key, value in texts.items()}
            (image,) = pipe(
                **texts,
                height=size[0],
                width=size[1],
                num_inference_steps=options.sample_steps,
                guidance_scale=options.sample_guidance,
                generator=torch.Generator().manual_seed((seed + number) % 2**63),
            ).images
            path = target.with_name(f"{target.name}-{number}.png")
            image.save(path)
            written.append(path)
    return written
