"""Sample images while a network trains, made by its own pipeline."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.config.train import TrainConfig
from calotype.core.output_files import write_output
from calotype.core.placeholders import fill_placeholders, has_placeholder
from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.keys import text_key
from calotype.encodings.store import EncodingStore
from calotype.errors import ConfigError
from calotype.ledger import LedgerEntry
from calotype.terminal import visible
from calotype.train.networks import network_of, pipeline_class, pipeline_index, pipeline_source

__all__ = ["Sampler", "encode_prompts", "fill_prompts", "make_sampler"]


def fill_prompts(prompts: Sequence[str], trigger: str | None) -> list[str]:
    """Fill `{trigger}` in prompts, as in captions.

    Raises:
        ConfigError: A prompt has `{trigger}`, and `caption_transform.trigger` is not set.
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
    """Return the encodings of prompts, on the CPU.

    Those missing from the store are computed by the text encoders, which are then unloaded.

    Args:
        models: The frozen models.
        prompts: Prompts as the pipeline takes them.
        store: The store of the training's encodings; new encodings are written to it, too.
    """
    keys = [text_key(models.text_fingerprint, prompt) for prompt in prompts]
    records: dict[bytes, dict[str, Tensor]] = {}
    if store is not None:
        rows = store.find(keys).tolist()
        records = {key: store.get(row) for key, row in zip(keys, rows, strict=True) if row >= 0}
    missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in records}
    if missing:
        try:
            texts = models.encode_texts(list(missing.values()))
            made = [{k: v.to("cpu") for k, v in record.items()} for record in texts]
        finally:
            models.release_texts()
        records |= dict(zip(missing, made, strict=True))
        if store is not None:
            with store.writer() as writer:
                writer.put(list(missing), made, kind="text")
    return [records[key] for key in keys]


def make_sampler(
    models: FrozenModels, encoded: EncodedDataset, options: TrainConfig, *, note: Callable[[LedgerEntry], None]
) -> Sampler | None:
    """Make the sampler of a run's `sample_prompts`; None without any.

    Args:
        models: The frozen models.
        encoded: The training dataset, for its trigger and its store.
        options: The `train` section.
        note: Called with each failure: `sample_failed`, with the image's name.
    """
    if not options.sample_prompts:
        return None
    prompts = fill_prompts(options.sample_prompts, encoded.dataset.caption_transform.trigger)
    return Sampler(models, prompts, options, store=encoded.store, note=note)


class Sampler:
    """Makes sample images while a network trains. Failures are reported, and never end the training.

    Args:
        models: The frozen models.
        prompts: Prompts as the pipeline takes them. They are encoded here; the text encoders are then unloaded.
        options: The `train` section, for `sample_steps` and `sample_guidance`.
        store: The store of the training's encodings.
        note: Called with each failure: `sample_failed`, with the image's name.
    """

    def __init__(
        self,
        models: FrozenModels,
        prompts: Sequence[str],
        options: TrainConfig,
        *,
        store: EncodingStore | None,
        note: Callable[[LedgerEntry], None],
    ) -> None:
        self._models, self._options, self._note = models, options, note
        self._prompts = list(prompts)
        self._negative: dict[str, Tensor] | None = None
        self._records: dict[int, dict[str, Tensor]] = {}
        wanted = [*self._prompts, ""] if prompts and _needs_empty_prompt(models) else self._prompts
        try:
            made = dict(enumerate(encode_prompts(models, wanted, store)))
        except Exception:  # one of the prompts, or the store: encode each by itself, without the store
            made = self._one_by_one(wanted)
        self._records = {number: record for number, record in made.items() if number < len(self._prompts)}
        if len(wanted) > len(self._prompts):  # without the empty prompt the pipeline can't guide
            self._negative = made.get(len(self._prompts))
            self._records = self._records if self._negative is not None else {}

    def make(
        self, weights: Any, *, size: tuple[int, int], seed: int, target: Path, given_up: Callable[[], bool]
    ) -> list[Path]:
        """Write one PNG for each prompt, from the same noise each time: `step-00000250-0.png`, ….

        The autoencoder is loaded here and unloaded afterwards.

        Args:
            weights: The trained network, unwrapped.
            size: (height, width) in pixels.
            seed: Seed of the noise.
            target: Prefix of the files: `samples/step-00000250`.
            given_up: Called before each denoising step; returns whether to stop.

        Returns:
            The files that were written.
        """
        written: list[Path] = []
        if not self._records:
            return written
        device = next(weights.parameters()).device
        pipe: Any = None
        try:
            pipe = self._pipeline(weights)
        except Exception as error:
            for number in self._records:
                self._failed(number, target, error)
        for number in self._records if pipe is not None else ():
            path = target.with_name(f"{target.name}-{number}.png")
            try:
                self._write(pipe, number, path, size=size, seed=seed, given_up=given_up)
                written.append(path)
            except _GivenUpError:
                break
            except Exception as error:
                self._failed(number, target, error)
            _empty_cache(device)  # after the handler, whose traceback references tensors
        return written

    def _pipeline(self, weights: Any) -> Any:
        """Load the pipeline with the trained network and without text encoders."""
        models, parameter = self._models, next(weights.parameters())
        component = network_of(models.spec).component
        pipe = pipeline_class(models).from_pretrained(
            pipeline_source(models, component),
            dtype=parameter.dtype,
            **{component: weights},
            **dict.fromkeys(models.text_components),
            **models.family.load_options,
        )
        pipe.vae.to(parameter.device)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _write(
        self, pipe: Any, number: int, path: Path, *, size: tuple[int, int], seed: int, given_up: Callable[[], bool]
    ) -> None:
        """Make the image of one prompt, and write it."""
        device, dtype = pipe.vae.device, pipe.vae.dtype

        def watch(_pipe: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
            if given_up():
                raise _GivenUpError
            return values

        texts = self._models.family.batch_texts([self._records[number]])
        if self._negative is not None:
            negative = self._models.family.batch_texts([self._negative])
            texts |= {f"negative_{key}": value for key, value in negative.items()}
        if given_up():
            raise _GivenUpError
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            (image,) = pipe(
                **{key: value.to(device, dtype) for key, value in texts.items()},
                height=size[0],
                width=size[1],
                num_inference_steps=self._options.sample_steps,
                guidance_scale=self._options.sample_guidance,
                generator=torch.Generator().manual_seed((seed + number) % 2**63),
                callback_on_step_end=watch,
            ).images
        data = io.BytesIO()
        image.save(data, "png")
        write_output(path, data.getvalue())

    def _one_by_one(self, prompts: Sequence[str]) -> dict[int, dict[str, Tensor]]:
        """Encode each prompt by itself; return the records of those that succeed, by number."""
        made = {}
        for number, prompt in enumerate(prompts):
            try:
                (made[number],) = encode_prompts(self._models, [prompt], None)
            except Exception as error:
                self._failed(number, None, error)
        return made

    def _failed(self, number: int, target: Path | None, error: Exception) -> None:
        prompt = self._prompts[number] if number < len(self._prompts) else ""
        where = "sample prompt" if target is None else f"{target.name}, sample"
        why = f"{error}".partition("\n")[0][:200] or type(error).__name__
        name = f"prompt-{number}" if target is None else f"{target.name}-{number}"
        then = "it has no samples" if target is None else "training continues"
        reason = f"{where} {number} ({visible(prompt, 60)!r}): {why}; {then}"
        self._note(LedgerEntry(kind="sample_failed", id=name, reason=reason))


def _needs_empty_prompt(models: FrozenModels) -> bool:
    """Return whether guidance needs the encoding of the empty prompt; SDXL uses zeros instead."""
    zeros = pipeline_index(models).get("force_zeros_for_empty_prompt", False)
    return network_of(models.spec).negative and not zeros


class _GivenUpError(Exception):
    """Ends a sample early."""


def _empty_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
