"""The options of encodings, as a config's `encodings` section has them."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, Self

import torch

from calotype.components import check_options
from calotype.encodings.addresses import Variants
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.store import EncodingStore
from calotype.errors import ConfigError, StoreError, unknown_key
from calotype.home import cache_folder

__all__ = ["EncodingOptions"]

_DTYPES: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingOptions:
    """What to encode with, how much of it to keep, and where.

    Raises:
        ConfigError: A value that can't be.
    """

    model: str
    """A name of the table, a name on the hub, or a local pipeline folder."""
    spec: str | None = None
    """The row of the table that it belongs to, where its name does not tell; its family's first otherwise."""
    store: str | Path | None = None
    """The folder of the records; by default one for all datasets, `$CALOTYPE_CACHE/encodings` (else
    `~/.cache/calotype/encodings`)."""
    dtype: str = "bfloat16"
    """Of the frozen models and of what is kept: `bfloat16`, `float16` or `float32`."""
    latents: Literal["moments", "mean"] = "moments"
    """`moments` keeps the posterior, so that latents are drawn anew each epoch; `mean` its mean alone, half as much."""
    max_sequence_length: int | None = None
    """Tokens of a caption, for models that have a choice; None is the model's usual length."""
    image_variants: int | None = None
    """Outcomes to keep of each picture where its crop, angle or colours are drawn anew each epoch."""
    caption_variants: int | None = None
    """Likewise of each caption whose parts are shuffled or dropped."""
    on_the_fly: bool = False
    """Encode what is missing while training, in its first epoch."""
    in_memory: bool = False
    """Keep records in the loader's memory from their first read on."""
    weights: str | None = None
    """Variant of the weights to load, such as `fp16`, where the model's repository has them so."""

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ConfigError(f"encodings.dtype: found {self.dtype!r}, expected one of {', '.join(_DTYPES)}")
        for name in ("on_the_fly", "in_memory"):
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(f"encodings.{name}: found {value!r}, expected true or false")
        self.variants  # noqa: B018 - raises when a count can't be

    @classmethod
    def of(cls, section: dict[str, Any]) -> Self:
        """The options of a config's section.

        Raises:
            ConfigError: One is unknown; names the nearest. Or no model is named.
        """
        names = [field.name for field in fields(cls)]
        for key in section:
            if key not in names:
                raise unknown_key("encodings", key, names)
        if not section.get("model"):
            raise ConfigError("encodings: nothing says for which model; name it with --model or model: flux.1-dev")
        check_options(cls, (), section, where="encodings")
        return cls(**section)

    @property
    def variants(self) -> Variants:
        """What stands for what can't be listed."""
        return Variants(image=self.image_variants, caption=self.caption_variants)

    def models(self, device: str | torch.device = "cpu") -> FrozenModels:
        """The frozen models; none is loaded yet."""
        return FrozenModels(
            self.model,
            spec=self.spec,
            device=device,
            dtype=_DTYPES[self.dtype],
            max_sequence_length=self.max_sequence_length,
            latents=self.latents,
            variant=self.weights,
        )

    def check_store(self) -> None:
        """Looks whether the store can be read, and written to where encodings are made on the fly; makes none.

        Raises:
            StoreError: It can't.
        """
        folder = self._folder
        if folder.exists() or not self.on_the_fly:
            EncodingStore(folder)
        there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        if self.on_the_fly and not (there.is_dir() and os.access(there, os.W_OK)):
            raise StoreError(f"{folder}: can't be written, and on_the_fly keeps encodings there; set encodings.store")

    @property
    def _folder(self) -> Path:
        return cache_folder("encodings") if self.store is None else Path(self.store).expanduser()

    def open_store(self, *, create: bool = False) -> EncodingStore:
        """The store.

        Raises:
            StoreError: There is none, and it is not to be made.
        """
        return EncodingStore(self._folder, create=create)
