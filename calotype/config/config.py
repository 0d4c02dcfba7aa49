"""`Config`: a whole config, checked; every section is a typed object."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BeforeValidator, ConfigDict, ValidationError, WithJsonSchema

from calotype.config.combinations import check_config
from calotype.config.component import OUR_DATASET, Component
from calotype.config.dataset import DatasetConfig
from calotype.config.derived import Derived
from calotype.config.distill import DistillConfig
from calotype.config.encodings import EncodingConfig
from calotype.config.errors import config_error
from calotype.config.instantiate import COMPONENT
from calotype.config.keys import KEYS, check_keys, check_seeds
from calotype.config.loader import LoaderConfig
from calotype.config.section import PathText, Section, plain
from calotype.config.train import TrainConfig
from calotype.errors import ConfigError

__all__ = ["Config"]

_PIXELS: Final = Component({COMPONENT: "calotype.PixelsTransform"})
"""In place of a model's transform: pixels and texts, no tokens."""


def _ours(path: str) -> BeforeValidator:
    return BeforeValidator(lambda value: Component.found(value, ours=path))


def _tokenizer(value: Any) -> Any:
    found = Component.found(value)
    if found is not None and not isinstance(found, Component):
        raise ConfigError(
            f"config: 'tokenizer' must be a mapping with {COMPONENT}, such as calotype.FluxTransform, "
            f"and is {value!r}; a model's name goes into 'model', a folder of tokenizers into 'tokenizers'"
        )
    return found


def _options(part: Section | Component | None) -> Mapping[str, Any]:
    """The options of a part that were given."""
    if part is None:
        return {}
    return part.mapping if isinstance(part, Component) else part.given()


Model = Annotated[PathText | Mapping[str, Any], WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]})]


class Config(Section):
    """A config. Keys at its top that are none of these belong to the trainer, and are kept as they are."""

    model_config = ConfigDict(extra="allow")
    sections: ClassVar[tuple[str, ...]] = ("dataset", "loader", "encodings", "train", "distill")
    """The keys that hold options."""

    dataset: Annotated[DatasetConfig | Component | None, _ours(OUR_DATASET)] = None
    """Which images and captions there are: options of `calotype.text_to_image_dataset`, or a dataset of your own."""
    model: Model | None = None
    """A model's name (`flux.1-dev`, `sdxl`, …), its name on the hub, or a local pipeline's folder; fills in what the
    model decides. A mapping is the trainer's network and is left alone."""
    tokenizers: Annotated[PathText | Mapping[str, PathText] | None, Derived("the model's, on the hub")] = None
    """Where that model's tokenizers are: a folder laid out as a saved pipeline, or a mapping."""
    tokenizer: Annotated[Component | None, BeforeValidator(_tokenizer)] = None
    """In place of the two above: a model transform, as `_component_` and its options."""
    loader: Annotated[LoaderConfig | Component | None, _ours("calotype.Loader")] = None
    """How batches are made: options of `calotype.Loader`."""
    encodings: EncodingConfig | None = None
    """What is encoded, with which model, and where it is stored; with it, the loader gives encoded batches."""
    train: TrainConfig | None = None
    """How `calotype train` trains."""
    distill: DistillConfig | None = None
    """How `calotype distill` trains a captioner."""

    @classmethod
    def parse(cls, config: Config | Mapping[str, Any], *, only: Collection[str] = KEYS) -> Self:
        """Check a config as `load_config` gives it; one that is checked already is returned as it is.

        Args:
            config: The config.
            only: Which keys of ours are used. The others are not looked at: they may be another trainer's.

        Raises:
            ConfigError: An option is unknown, has a value that can't be, or contradicts another.
        """
        if isinstance(config, cls):
            return config
        assert isinstance(config, Mapping)
        found = cls._validated(config, only)
        check_config(found, only)
        return found

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Return the config of a `to_mapping()`, for another process: what a person gave was checked before.

        Raises:
            ConfigError: An option is unknown or has a value that can't be.
        """
        return cls._validated(mapping, KEYS)

    @classmethod
    def _validated(cls, config: Mapping[str, Any], only: Collection[str]) -> Self:
        check_keys(config, "config")
        check_seeds(config, "config")
        used = {str(key): value for key, value in config.items() if key not in KEYS or key in only}
        try:
            return cls.model_validate(plain(used))
        except ValidationError as error:
            raise config_error(error, cls, used, "") from None

    @property
    def extra(self) -> dict[str, Any]:
        """The trainer's own keys."""
        return dict(self.model_extra or {})

    def given(self) -> dict[str, Any]:
        """Return the keys that were given, the trainer's too."""
        return super().given() | self.extra

    def updated(self, **sections: Any) -> Self:
        """Return a copy with other sections, checked anew. What has no effect in it was not given by a person."""
        return self._validated(self.given() | sections, KEYS)

    def our_dataset(self, use: str = "used here") -> DatasetConfig:
        """Return the options of the dataset, without the model of the top.

        Args:
            use: What the dataset is for, as the error for a component calls it.

        Raises:
            ConfigError: There are none, or the dataset is a component.
        """
        if isinstance(self.dataset, Component):
            raise ConfigError(f"dataset: {self.dataset.path} can't be {use}; expected a dataset of {OUR_DATASET}")
        if self.dataset is None or not self.dataset.given():
            raise ConfigError("config: there is no 'dataset'; it needs at least dataset.path=…")
        return self.dataset

    def dataset_options(self) -> Mapping[str, Any]:
        """Return the options of the dataset that were given, whether it is ours or a component."""
        return _options(self.dataset)

    def loader_options(self) -> Mapping[str, Any]:
        """Return the options of the loader that were given, whether it is ours or a component."""
        return _options(self.loader)

    @property
    def loader_device(self) -> str | None:
        """The device of the loader, where one is given."""
        device = self.loader_options().get("device")
        return None if device is None else str(device)

    def with_dataset(self, **options: Any) -> Self:
        """Return the config with other options of the dataset.

        Raises:
            ConfigError: An option can't be, or there is no dataset.
        """
        if isinstance(self.dataset, Component):
            return self.updated(dataset=Component({**self.dataset.mapping, **options}))
        return self.updated(dataset=self.our_dataset().updated(**options))

    def without_tokens(self) -> Self:
        """Return the same dataset as pixels and captions, without tokens. Its model still decides the sizes."""
        config = self.updated(tokenizer=_PIXELS, tokenizers=None)
        return config if isinstance(self.dataset, Component) else config.with_dataset(tokenizers=None)

    def without_model(self, *, model: str | None = None) -> Self:
        """Return the same dataset as pixels and captions, without a model that decides anything.

        Args:
            model: Decides the sizes in place of the config's own.
        """
        return self.without_tokens().updated(model=None).with_dataset(model=model)

    def without_encodings(self) -> Self:
        """Return the same dataset without its encodings, so that a loader returns images. Their model still decides."""
        if self.encodings is None:
            return self
        model = {} if self.encodings.model is None else {"model": self.encodings.model}
        return self.updated(encodings=None, **model)

    def lenient(self) -> Self:
        """Return the same dataset with bad rows left out, and images without a caption kept."""
        missing = self.our_dataset().missing_captions
        return self.with_dataset(on_error="skip", missing_captions="empty" if missing in (None, "error") else missing)

    def side(self, split: str) -> Self:
        """Return one side of the dataset: another split, or the share that `validation` holds out."""
        return self.with_dataset(split=split)

    def sides(self) -> tuple[Self, Self | None]:
        """Return what to train on, and what `validation` holds out; None where it holds out nothing."""
        held_out = self.dataset_options().get("validation")
        return (self.side("train"), self.side("validation")) if held_out else (self, None)

    @property
    def model_name(self) -> str | None:
        """The model at the top, where it is ours: a mapping is the trainer's network (torchtune's `model`)."""
        return None if self.model is None or isinstance(self.model, Mapping) else str(self.model)

    @property
    def any_model(self) -> str | None:
        """The model, wherever it is named."""
        inside = self.dataset.model if isinstance(self.dataset, DatasetConfig) else None
        return self.model_name or (None if inside is None else str(inside))

    @property
    def any_tokenizers(self) -> str | Path | Mapping[str, str | Path] | None:
        """Where the tokenizers are, wherever it is written."""
        inside = self.dataset.tokenizers if isinstance(self.dataset, DatasetConfig) else None
        return self.tokenizers or inside

    def encoding_section(self, **defaults: Any) -> EncodingConfig:
        """The options of encodings, with the config's model.

        Args:
            **defaults: Options where the config gives none.

        Raises:
            ConfigError: The model is named twice.
        """
        section = self.encodings or EncodingConfig()
        model = self.any_model
        if model is not None and section.model is not None:
            raise ConfigError("config: 'model' stands in 'encodings' and outside it as well; keep one of them")
        return section.of(defaults | section.given() | ({} if model is None else {"model": model}))
