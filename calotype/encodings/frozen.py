"""`FrozenModels`: the text encoders and the autoencoder of a pipeline, each loaded when first used."""

from __future__ import annotations

import contextlib
import gc
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
from calotype.models.downloads import ways_to_get
from calotype.models.family import TokenCount
from calotype.models.json_file import read_json_object
from calotype.models.own_sizes import count_parameters, own_encodings
from calotype.models.pipeline_folder import find_pipeline, frozen_components, import_diffusers, which_model
from calotype.models.spec import EncodingSpec, ModelSpec, check_image_size
from calotype.models.transform import PixelsTransform, TokenField, TokenTransform, Truncation

__all__ = ["FrozenModels"]


_OF_THE_FILES: Final = {"text_fingerprint", "picture_fingerprint", "scaling", "encoding_spec", "_token_fields"}
"""Cached properties that are computed from the model's files."""


class FrozenModels:
    """Encodes texts to embeddings and images to latents, as a pipeline does before its transformer runs.

    Loads and computes with diffusers (`from_pretrained`, `encode_prompt`, the autoencoder's `encode`), so the results
    equal those of the pipeline. The transformer is never loaded; text encoders and autoencoder are loaded when first
    used. `release_texts` and `release_pictures` free their memory.

    Args:
        model: Name of a model (`flux.1-dev`), a repository of the hub, or a local pipeline folder (from
            `save_pretrained`, or `hf download … --local-dir`).
        spec: Name of the model in a folder or repository that does not identify it. Defaults to the first of its
            family.
        device: Device of the models.
        dtype: Dtype of the models and of their outputs.
        max_sequence_length: Tokens of a text, for models with a choice; None is the model's default.
        latents: `moments` stores mean and log variance of the posterior, so that training can sample anew each epoch;
            `mean` stores the mean only. An autoencoder without a posterior has `latents` in both cases.
        variant: Variant of the weights (`fp16`), if the repository has it.
        network: Whether the transformer or U-Net will be loaded, too: errors then advise how to get it.

    Raises:
        ConfigError: The model is unknown, its folder is not a pipeline, it can't be downloaded, or it does not support
            `max_sequence_length`.
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
        network: bool = False,
    ) -> None:
        if latents not in ("moments", "mean"):
            raise ConfigError(f"latents: 'moments' or 'mean' was expected, found {latents!r}")
        self.device, self.dtype, self.latents = torch.device(device), dtype, latents
        self.model, self.variant = model, variant
        self.folder, index = find_pipeline(model, spec=spec, variant=variant, network=network)
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
        """Return the state without loaded models and hashes: on another machine the folder may have another model."""
        kept = {name: value for name, value in self.__dict__.items() if name not in _OF_THE_FILES}
        return kept | {"folder": self.folder.absolute(), "_pipe": None, "_without_models": None, "_vae": None}

    @cached_property
    def text_fingerprint(self) -> str:
        """Hash of everything that determines the record of a text: 32 hex digits. Loads no model."""
        parts: list[str | bytes] = ["text", *self._made_by, str(self.max_sequence_length)]
        for name in self.text_components:
            parts += [name, component_fingerprint(self._component(name), variant=self.variant)]
        return combine(parts).hex()

    @cached_property
    def picture_fingerprint(self) -> str:
        """Hash of everything but the pixels that determines the record of an image: 32 hex digits. Loads no model."""
        kept = self.latents if self.spec.encodings.posterior else "latents"
        vae = component_fingerprint(self._component("vae"), variant=self.variant)
        return combine(["picture", *self._made_by, kept, vae]).hex()

    @property
    def _made_by(self) -> tuple[str, ...]:
        return self.family.identity, str(self.family.version), str(self.dtype)

    def encode_texts(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        """Encode texts.

        Args:
            texts: Final captions.

        Returns:
            One record (name → tensor, without batch dimension) for each text, on the models' device. Without the
            padding tokens if the model masks them.

        Raises:
            ConfigError: The text encoders can't be loaded.
        """
        if not texts:
            return []
        pipe = self._texts()
        with torch.no_grad(), _quiet(pipe):
            return self.family.encode_prompt(
                pipe, texts, max_sequence_length=self.max_sequence_length, device=self.device
            )

    def cut_texts(self, texts: Sequence[str]) -> list[tuple[Truncation, ...]]:
        """Return the truncations of each text, one for each tokenizer that truncates it. Loads the tokenizers only."""
        found: list[list[Truncation]] = [[] for _ in texts]
        if texts:
            for count in self._counts(texts):
                for cuts, tokens in zip(found, count.tokens, strict=True):
                    if tokens > count.limit:
                        cuts.append(Truncation(tokenizer=count.tokenizer, tokens=tokens, limit=count.limit))
        return [tuple(cuts) for cuts in found]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, after truncation: the largest of all tokenizers. Loads no model."""
        most = [0] * len(texts)
        for count in self._counts(texts):
            most = [max(other, min(tokens, count.limit)) for other, tokens in zip(most, count.tokens, strict=True)]
        return most

    def encode_pictures(self, img: Tensor) -> dict[str, Tensor]:
        """Encode images.

        Args:
            img: (B, 3, H, W), uint8, or float in [-1, 1].

        Returns:
            Stacked records on the models' device: `moments` (B, 2C, h, w), the posterior's mean and log variance; or
            `latents` (B, C, h, w). Unscaled: `family.latents(…, scaling)` converts them to the transformer's input.

        Raises:
            ConfigError: The model does not support the size, or the autoencoder can't be loaded.
        """
        if img.ndim != 4 or img.shape[1] != 3:
            raise ConfigError(f"img: (B, 3, height, width) was expected, found {tuple(img.shape)}")
        check_image_size(self.spec, (img.shape[2], img.shape[3]), where="img")
        vae = self._pictures()
        img = img.to(self.device, non_blocking=True)
        if img.dtype == torch.uint8:
            img = PixelsTransform().finish({"img": img})["img"]  # float in [-1, 1]
        with torch.no_grad():
            records = self.family.encode(vae, img.to(vae.dtype), latents=self.latents)
        return {key: value.to(self.dtype) for key, value in records.items()}

    @cached_property
    def scaling(self) -> dict[str, Tensor]:
        """Tensors (small, float32, on the CPU) with which `family.latents` scales records to the model's latents."""
        return {name: value.detach().float().cpu() for name, value in self.family.scaling(self._pictures()).items()}

    def in_float32(self) -> FrozenModels:
        """Return the same models in float32, not loaded yet: for inputs that overflow in this object's dtype."""
        return FrozenModels(
            self.model,
            spec=self.spec.name,
            device=self.device,
            dtype=torch.float32,
            max_sequence_length=self._asked_length,
            latents=self.latents,
            variant=self.variant,
        )

    @cached_property
    def encoding_spec(self) -> EncodingSpec:
        """Sizes and costs of these models' outputs: those of the pipeline's own files, where it has other ones."""
        encoders = [name for name in self.text_components if name.startswith("text_encoder")]
        return own_encodings(self.spec, self.folder, encoders, variant=self.variant)

    @property
    def parameters(self) -> int:
        """Number of parameters of all text encoders and the autoencoder, by their files."""
        names = [name for name in self.text_components if name.startswith("text_encoder")]
        return sum(count_parameters(self.folder / name, variant=self.variant) for name in (*names, "vae"))

    def check_files(self) -> None:
        """Check that all files exist and are complete, without reading the weights.

        Raises:
            ConfigError: A component's folder or file is missing, or a file is truncated.
        """
        for name in (*self.text_components, "vae"):
            models = name == "vae" or name.startswith("text_encoder")
            check_component(self._component(name), variant=self.variant, weights=models)

    def release_texts(self) -> None:
        """Free the text encoders. They are loaded again when next used."""
        self._pipe = None
        self._free()

    def release_pictures(self) -> None:
        """Free the autoencoder. It is loaded again when next used."""
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
        """Return the token counts of each tokenizer: calotype's, as in the dataset and `check`; else the pipeline's."""
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
        """Return a pipeline with at least its tokenizers."""
        if self._pipe is None and self._without_models is None:
            names = [name for name in self.text_components if name.startswith("tokenizer")]
            self._without_models = self._load(names, dtype=self.dtype)
        return self._pipe or self._without_models

    def _load(self, components: Sequence[str], *, dtype: torch.dtype) -> Any:
        """Load the pipeline with these components only."""
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
            config = read_json_object(self._component("vae") / "config.json")
            upcast = self.family.upcast and config.get("force_upcast", True)  # the default of AutoencoderKL
            pipe = self._load(["vae"], dtype=torch.float32 if upcast else self.dtype)
            self._vae = pipe.vae.to(self.device)
        return self._vae


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Return `Truncation` by its former name, until 0.2."""
        if name != "TextCut":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        warnings.warn("TextCut is called calotype.models.Truncation", DeprecationWarning, stacklevel=2)
        return Truncation


def _sequence_length(spec: ModelSpec, asked: int | None) -> int | None:
    """Return the number of tokens of a text, checked: `asked`, or the model's default if it is None.

    Raises:
        ConfigError: The model has a fixed number, or supports only fewer.
    """
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
    """Turn errors of diffusers' loading into a ConfigError that names the components, and how to get them."""
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
    """Stop the libraries from logging each truncated text in each batch: `cut_texts` reports each text once."""
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
            "have to be in `processor_kwargs` dict",  # from FLUX.2's own call of its tokenizer
        )
    )
