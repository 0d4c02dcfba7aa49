"""A pipeline's frozen part: its text encoders and its autoencoder, each loaded when it is first used."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor

from calotype.encodings.fingerprint import combine, component_fingerprint
from calotype.errors import ConfigError, MissingDependencyError
from calotype.models.component_check import check_component
from calotype.models.family import TokenCount
from calotype.models.pipeline_folder import find_pipeline, frozen_components, import_diffusers, ways_to_get, which_model
from calotype.models.spec import ModelSpec, check_image_size
from calotype.models.transform import PixelsTransform, TokenField, TokenTransform, Truncation

__all__ = ["FrozenModels"]


_OF_THE_FILES: Final = {"text_fingerprint", "picture_fingerprint", "scaling", "_token_fields"}
"""What is read off a model's files once for each object."""


class FrozenModels:
    """What a pipeline computes before its transformer: embeddings of texts, latents of images.

    Loading and computing are diffusers' own (`from_pretrained`, `encode_prompt`, the autoencoder's `encode`), so what
    comes out is what the pipeline itself would compute. The transformer is never loaded, and text encoders and
    autoencoder only when they are first asked; `release_texts` and `release_pictures` give their memory back.

    Args:
        model: A model's name (`flux.1-dev`), a name on the hub, or a local pipeline folder
            (`save_pretrained`, `hf download … --local-dir`).
        spec: The model that a folder or a hub's name is, where it does not tell itself; its
            family's first otherwise.
        device: Where the models run.
        dtype: Of the models, and of what comes out.
        max_sequence_length: Tokens of a text, for a model that has a choice; None is the table's.
        latents: `moments` keeps the posterior's mean and log variance, so that training can draw anew each epoch;
            `mean` its mean alone. An autoencoder without a posterior gives `latents` either way.
        variant: Of the weights (`fp16`), where the repository has them so.

    Raises:
        ConfigError: The model is unknown, its folder is not a pipeline's, it can't be fetched, or it does not take
            such a length.
        MissingDependencyError: diffusers or transformers is not installed.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        spec: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        max_sequence_length: int | None = None,
        latents: Literal["moments", "mean"] = "moments",
        variant: str | None = None,
    ) -> None:
        if latents not in ("moments", "mean"):
            raise ConfigError(f"latents: 'moments' or 'mean' was expected, found {latents!r}")
        self.device, self.dtype, self.latents = torch.device(device), dtype, latents
        self.model, self.variant = model, variant
        self.folder, index = find_pipeline(model, spec=spec, variant=variant)
        self.spec, self.family = which_model(index, self.folder, asked_for=model, spec=spec)
        self._asked_length = max_sequence_length
        self.max_sequence_length = _sequence_length(self.spec, max_sequence_length)
        self._all_components = [name for name, value in index.items() if isinstance(value, list)]
        self.text_components = [name for name in frozen_components(index) if name != "vae"]
        absent = [name for name in self.text_components if index[name] == [None, None]]
        if absent:
            raise ConfigError(
                f"{self.folder}: {', '.join(absent)} of {self.spec.name} is left out there (null in model_index.json); "
                "a pipeline with all its text encoders was expected"
            )
        self._pipe: Any = None
        self._without_models: Any = None
        self._vae: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickled without what it has loaded and hashed: another machine may find another model in the folder."""
        kept = {name: value for name, value in self.__dict__.items() if name not in _OF_THE_FILES}
        return kept | {"folder": self.folder.absolute(), "_pipe": None, "_without_models": None, "_vae": None}

    @cached_property
    def text_fingerprint(self) -> str:
        """32 hex digits that change with whatever could change a text's record. Loads nothing."""
        parts: list[str | bytes] = ["text", *self._made_by, str(self.max_sequence_length)]
        for name in self.text_components:
            parts += [name, component_fingerprint(self._component(name), variant=self.variant)]
        return combine(parts).hex()

    @cached_property
    def picture_fingerprint(self) -> str:
        """32 hex digits that change with whatever could change an image's record, its pixels aside. Loads nothing."""
        kept = self.latents if self.spec.encodings.posterior else "latents"
        vae = component_fingerprint(self._component("vae"), variant=self.variant)
        return combine(["picture", *self._made_by, kept, vae]).hex()

    @property
    def _made_by(self) -> tuple[str, ...]:
        return self.family.identity, str(self.family.version), str(self.dtype)

    def encode_texts(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        """One record for each text, on the models' device; trimmed to real tokens where the model masks padding.

        Raises:
            ConfigError: The text encoders are not whole.
        """
        if not texts:
            return []
        pipe = self._texts()
        with torch.no_grad(), _quiet(pipe):
            return self.family.encode_prompt(
                pipe, texts, max_sequence_length=self.max_sequence_length, device=self.device
            )

    def cut_texts(self, texts: Sequence[str]) -> list[tuple[Truncation, ...]]:
        """Which tokenizers cut each text, by their own count; needs the model's tokenizers alone."""
        found: list[list[Truncation]] = [[] for _ in texts]
        if texts:
            for count in self._counts(texts):
                for cuts, tokens in zip(found, count.tokens, strict=True):
                    if tokens > count.limit:
                        cuts.append(Truncation(tokenizer=count.tokenizer, tokens=tokens, limit=count.limit))
        return [tuple(cuts) for cuts in found]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens that each text has for the model, of the tokenizer that finds the most; needs no model."""
        most = [0] * len(texts)
        for count in self._counts(texts):
            most = [max(other, min(tokens, count.limit)) for other, tokens in zip(most, count.tokens, strict=True)]
        return most

    def encode_pictures(self, img: Tensor) -> dict[str, Tensor]:
        """Records of images, stacked, on the models' device.

        Args:
            img: (B, 3, H, W), uint8, or float in [-1, 1].

        Returns:
            `moments` (B, 2C, h, w), the posterior's mean and log variance; or `latents` (B, C, h, w). Unscaled:
            `family.latents(…, scaling)` makes of them what the transformer takes.

        Raises:
            ConfigError: The size does not fit the model, or the autoencoder is not whole.
        """
        if img.ndim != 4 or img.shape[1] != 3:
            raise ConfigError(f"img: (B, 3, height, width) was expected, found {tuple(img.shape)}")
        check_image_size(self.spec, (img.shape[2], img.shape[3]), where="img")
        vae = self._pictures()
        img = img.to(self.device, non_blocking=True)
        if img.dtype == torch.uint8:
            img = PixelsTransform().finish({"img": img})["img"]
        with torch.no_grad():
            records = self.family.encode(vae, img.to(vae.dtype), latents=self.latents)
        return {key: value.to(self.dtype) for key, value in records.items()}

    @cached_property
    def scaling(self) -> dict[str, Tensor]:
        """The small float32 tensors (on the CPU) with which `family.latents` turns records into the model's latents."""
        return {name: value.detach().float().cpu() for name, value in self.family.scaling(self._pictures()).items()}

    def in_float32(self) -> FrozenModels:
        """The same models in float32, not loaded yet: for what overflows in this object's dtype."""
        return FrozenModels(
            self.model,
            spec=self.spec.name,
            device=self.device,
            dtype=torch.float32,
            max_sequence_length=self._asked_length,
            latents=self.latents,
            variant=self.variant,
        )

    def check_files(self) -> None:
        """Looks whether all files are there and whole, without reading weights.

        Raises:
            ConfigError: A component's folder or file is missing, or a file is cut short.
        """
        for name in (*self.text_components, "vae"):
            models = name == "vae" or name.startswith("text_encoder")
            check_component(self._component(name), variant=self.variant, weights=models)

    def release_texts(self) -> None:
        """Drops the text encoders from memory; asked again, they are loaded again."""
        self._pipe = None
        self._free()

    def release_pictures(self) -> None:
        """Drops the autoencoder from memory; asked again, it is loaded again."""
        self._vae = None
        self._free()

    def _free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _component(self, name: str) -> Path:
        folder = self.folder / name
        if not folder.is_dir():
            raise ConfigError(f"{self.folder}: no folder {name}; {ways_to_get(self.spec)}")
        return folder

    def _texts(self) -> Any:
        if self._pipe is None:
            self._pipe = self._load(self.text_components, dtype=self.dtype).to(self.device)
        return self._pipe

    def _counts(self, texts: Sequence[str]) -> list[TokenCount]:
        """By calotype's own tokenizers, which the dataset and `check` use too; by the pipeline's where it has none."""
        if not self.spec.tokenizers:
            return self.family.token_counts(self._tokenizers(), texts, max_sequence_length=self.max_sequence_length)
        return [
            TokenCount(tokenizer=one.spec.subfolder, limit=one.max_length, tokens=one.tokenizer.counts(texts))
            for one in self._token_fields
        ]

    @cached_property
    def _token_fields(self) -> tuple[TokenField, ...]:
        paths = {one.option: self._component(one.subfolder) for one in self.spec.tokenizers}
        options = [one.length_option for one in self.spec.tokenizers if one.length_option is not None]
        lengths = {} if self.max_sequence_length is None else dict.fromkeys(options, self.max_sequence_length)
        return TokenTransform(self.spec, paths, **lengths).fields

    def _tokenizers(self) -> Any:
        """A pipeline with its tokenizers at least."""
        if self._pipe is None and self._without_models is None:
            names = [name for name in self.text_components if name.startswith("tokenizer")]
            self._without_models = self._load(names, dtype=self.dtype)
        return self._pipe or self._without_models

    def _load(self, components: Sequence[str], *, dtype: torch.dtype) -> Any:
        """The pipeline with these components alone."""
        for name in components:
            self._component(name)
        diffusers = import_diffusers()
        absent: dict[str, Any] = {name: None for name in self._all_components if name not in components}
        with _explained(self.spec, self.folder, components):
            return getattr(diffusers, self.family.pipelines[0]).from_pretrained(
                str(self.folder),
                dtype=dtype,
                variant=self.variant,
                **(absent | dict(self.family.load_options)),
            )

    def _pictures(self) -> Any:
        if self._vae is None:
            config = json.loads((self._component("vae") / "config.json").read_bytes())
            upcast = self.family.upcast and config.get("force_upcast", True)  # the default of AutoencoderKL
            pipe = self._load(["vae"], dtype=torch.float32 if upcast else self.dtype)
            self._vae = pipe.vae.to(self.device)
        return self._vae


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The former name of `Truncation`, until 0.2."""
        if name != "TextCut":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        warnings.warn("TextCut is called calotype.models.Truncation", DeprecationWarning, stacklevel=2)
        return Truncation


def _sequence_length(spec: ModelSpec, asked: int | None) -> int | None:
    """Tokens of a text, checked; None where the model has no choice."""
    usual, most = spec.sequence_length, spec.longest_sequence
    if asked is None:
        return usual
    if most is None:
        raise ConfigError(f"max_sequence_length: {spec.name} has a fixed one; leave it out")
    if isinstance(asked, bool) or not isinstance(asked, int) or not 1 <= asked <= most:
        raise ConfigError(
            f"max_sequence_length: {asked!r} does not fit {spec.name}, which takes 1 to {most} tokens; "
            f"leave it out for {usual}"
        )
    return asked


@contextlib.contextmanager
def _explained(spec: ModelSpec, folder: Path, components: Sequence[str]) -> Iterator[None]:
    """What diffusers can't load becomes an error that says which files were looked for, and how to get them."""
    try:
        yield
    except MissingDependencyError:
        raise
    except (OSError, ValueError, RuntimeError, ImportError, AttributeError) as error:
        raise ConfigError(
            f"{folder}: diffusers could not load {', '.join(components)} of {spec.name} "
            f"({type(error).__name__}: {error}); {ways_to_get(spec)}"
        ) from error


@contextlib.contextmanager
def _quiet(pipe: Any) -> Iterator[None]:
    """Keeps the libraries from logging every text that is cut, batch by batch: `cut_texts` tells, once for each."""
    logs = [logging.getLogger(name) for name in (type(pipe).__module__, *_NOISY)]  # noqa: TID251 - theirs
    for log in logs:
        log.addFilter(_passes)
    try:
        yield
    finally:
        for log in logs:
            log.removeFilter(_passes)


_NOISY: Final = ("transformers.tokenization_utils_base", "transformers.processing_utils")


def _passes(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(
        part in message
        for part in (
            "was truncated because",
            "longer than the specified maximum sequence length",
            "have to be in `processor_kwargs` dict",  # how FLUX.2's own pipeline calls its tokenizer
        )
    )
