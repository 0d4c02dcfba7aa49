"""A family of models in one record: facts, tokenizers, frozen encoders, network.

A family holds no weights. Its methods under "With the models" take a loaded pipeline or autoencoder and return records;
those under "With the records" turn records into the transformer's inputs and need no model. Importing a family imports
neither torch nor diffusers: its methods import them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from calotype.errors import ConfigError
from calotype.models.network import Network
from calotype.models.spec import ModelSpec, TextOutput
from calotype.models.transform import PixelsTransform, TokenTransform
from calotype.types import Geometry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["ModelFamily", "TokenCount", "count_tokens", "sample_moments", "split", "trim"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCount:
    """Token counts of texts with one tokenizer."""

    tokenizer: str
    """Name of the pipeline's component: `tokenizer_2`."""

    limit: int
    """Tokens that texts are truncated to, special tokens included."""

    tokens: Sequence[int]
    """Count of each text, without truncation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelFamily(ABC):
    """Base class of the families; its defaults fit an `AutoencoderKL` with one scaling factor and one shift.

    A subclass implements `encode_prompt`, and `token_counts` where its models' specs name no tokenizers, and overrides
    other methods that differ. Its single instance holds the facts; `calotype.models.register` or an entry point
    registers it (docs/families.md).

    Raises:
        ConfigError: A model's spec does not fit the family.
    """

    name: str
    """Name of the family: `flux.1`."""

    models: tuple[ModelSpec, ...]
    """Its models. The first is the default for a pipeline folder that does not name its model."""

    pipelines: tuple[str, ...]
    """Names of diffusers' pipeline classes for this family; the first is loaded to encode."""

    load_options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the pipeline's `from_pretrained`."""

    upcast: bool = False
    """Whether the pipeline encodes images in float32 where its autoencoder's config says `force_upcast`."""

    version: int = 1
    """Part of every fingerprint; increment it when a change of the code changes records."""

    transform: type[PixelsTransform] | None = None
    """Transform class with its own constructor; None uses `TokenTransform`, or `PixelsTransform` without tokenizers."""

    network: Network | None = None
    """How its network is trained; None where `calotype train` does not support it."""

    def __post_init__(self) -> None:
        if not self.models or not self.pipelines:
            raise ConfigError(f"model family {self.name!r}: at least one model and one pipeline were expected")
        if not self.models[0].tokenizers and type(self).token_counts is ModelFamily.token_counts:
            raise ConfigError(f"model family {self.name!r}: without tokenizers in its specs, it needs token_counts")
        for spec in self.models:
            if spec.family != self.name:
                raise ConfigError(
                    f"model family {self.name!r}: its model {spec.name!r} names the family {spec.family!r}"
                )
            if spec.encodings.sequence_length is not None and spec.sequence_length != spec.encodings.sequence_length:
                raise ConfigError(
                    f"model family {self.name!r}: {spec.name!r} has a tokenizer of {spec.sequence_length} tokens and "
                    f"encodings.sequence_length {spec.encodings.sequence_length}; leave the latter out"
                )
            if [(text.key, text.mask) for text in spec.encodings.texts] != [(t.key, t.mask) for t in self.texts]:
                raise ConfigError(
                    f"model family {self.name!r}: {spec.name!r} has other text tensors than the first model"
                )

    @property
    def texts(self) -> tuple[TextOutput, ...]:
        """The tensors of a text's record."""
        return self.models[0].encodings.texts

    @property
    def identity(self) -> str:
        """Part of every fingerprint: the class's name, with its module for another package's class."""
        kind = type(self)
        return (
            kind.__qualname__ if kind.__module__.startswith("calotype.") else f"{kind.__module__}.{kind.__qualname__}"
        )

    @property
    def transform_class(self) -> type[PixelsTransform]:
        """The class of the family's transform."""
        return self.transform or (TokenTransform if self.models[0].tokenizers else PixelsTransform)

    # -- With the models ---------------------------------------------------------------------------------------------

    @abstractmethod
    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        """Encode texts by the pipeline's own `encode_prompt`; return their records without batch dimension, trimmed.

        Args:
            pipe: The loaded pipeline, with its text encoders only.
            texts: At least one.
            max_sequence_length: Tokens of a text; None where it is fixed.
            device: Device of the text encoders.
        """

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        """Count the tokens of texts with each of the pipeline's tokenizers, where the models' specs name none.

        Where the specs name tokenizers, calotype's own count, and this is not called.

        Args:
            pipe: The pipeline with its tokenizers; it needs no model.
            texts: At least one.
            max_sequence_length: Tokens of a text; None where it is fixed.
        """
        raise NotImplementedError

    def encode(self, vae: Any, img: Tensor, *, latents: Literal["moments", "mean"]) -> dict[str, Tensor]:
        """Encode images; return their records, stacked: `moments` (B, 2C, h, w), or `latents` (B, C, h, w).

        Args:
            vae: The loaded autoencoder.
            img: (B, 3, H, W) in [-1, 1], in the autoencoder's dtype.
            latents: `moments` returns the posterior's mean and log variance
                (`DiagonalGaussianDistribution.parameters`), `mean` only its mean. Both are unscaled.
        """
        posterior = vae.encode(img).latent_dist
        return {"moments": posterior.parameters} if latents == "moments" else {"latents": posterior.mode()}

    def scaling(self, vae: Any) -> dict[str, Tensor]:
        """Return the autoencoder's constants that `latents` needs, as float32 tensors."""
        import torch

        config = vae.config
        return {
            name: torch.tensor(value, dtype=torch.float32)
            for name in ("scaling_factor", "shift_factor")
            if (value := getattr(config, name, None)) is not None
        }

    # -- With the records --------------------------------------------------------------------------------------------

    def latents(self, raw: Tensor, scaling: Mapping[str, Tensor]) -> Tensor:
        """Scale latents for the transformer, as diffusers' training script for the family does.

        Args:
            raw: Unscaled latents (B, C, h, w) of any float dtype: a record's, or from `sample_moments`.
            scaling: What `scaling` returned.

        Returns:
            (B, C, h, w), float32 on `raw`'s device.
        """
        latents = raw.float()
        if "shift_factor" in scaling:
            latents = latents - scaling["shift_factor"].to(raw.device)
        return latents * scaling["scaling_factor"].to(raw.device)

    def batch_texts(self, records: Sequence[Mapping[str, Tensor]], *, length: int | None = None) -> dict[str, Tensor]:
        """Batch texts' records, as `encode_prompt` would have returned them together.

        Trimmed tensors are padded at the end with zeros, and their masks are added.

        Args:
            records: At least one.
            length: Padded length in tokens; None is that of the longest record.

        Raises:
            ConfigError: A record is longer than `length`.
        """
        import torch

        batch: dict[str, Tensor] = {}
        for output in self.texts:
            tensors = [record[output.key] for record in records]
            if output.mask is None:
                batch[output.key] = torch.stack(tensors)
                continue
            longest = max(len(tensor) for tensor in tensors)
            if length is not None and longest > length:
                raise ConfigError(f"length: found {length} tokens, and a text's {output.key} has {longest}; allow more")
            first = tensors[0]
            padded = first.new_zeros((len(tensors), length or longest, *first.shape[1:]))  # (B, T, D)
            mask = torch.zeros(padded.shape[:2], dtype=output.mask_dtype, device=first.device)  # (B, T)
            for row, tensor in enumerate(tensors):
                padded[row, : len(tensor)] = tensor
                mask[row, : len(tensor)] = 1
            batch |= {output.key: padded, output.mask: mask}
        return batch

    def conditioning(self, geometry: Geometry) -> dict[str, Tensor]:
        """Return an image's further inputs to the network, such as its size; empty for most families."""
        return {}


def sample_moments(moments: Tensor, noise: Tensor) -> Tensor:
    """Sample posteriors as diffusers' `DiagonalGaussianDistribution.sample` does: mean + std · noise, float32.

    Args:
        moments: (B, 2C, …), mean and log variance concatenated.
        noise: (B, C, …), standard normal.
    """
    import torch

    mean, logvar = moments.float().chunk(2, dim=1)  # (B, C, …) each
    return mean + torch.exp(0.5 * logvar.clamp(-30.0, 20.0)) * noise


def count_tokens(
    pipe: Any, tokenizer: str, prompts: Sequence[str], *, limit: int | None = None, framing: int = 0
) -> TokenCount:
    """Count the tokens of texts with one of the pipeline's tokenizers.

    Args:
        pipe: A pipeline with its tokenizers.
        tokenizer: The component's name.
        prompts: The texts as the pipeline passes them to it.
        limit: Tokens that the pipeline truncates to; None is the tokenizer's `model_max_length`.
        framing: Tokens of each prompt that do not count against the limit.
    """
    loaded = getattr(pipe, tokenizer)
    tokens = [len(ids) - framing for ids in loaded(list(prompts), verbose=False).input_ids]
    return TokenCount(tokenizer=tokenizer, limit=limit or loaded.model_max_length, tokens=tokens)


def split(outputs: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Split a batch's tensors into one record for each row."""
    rows = len(next(iter(outputs.values())))
    return [{key: value[row] for key, value in outputs.items()} for row in range(rows)]


def trim(key: str, embeds: Tensor, mask: Tensor | None) -> list[dict[str, Tensor]]:
    """Split a batch (B, L, D) into one record (length, D) for each row, with the real tokens of its mask (B, L).

    Args:
        key: Key of the tensor in the records.
        embeds: The pipeline's output (B, L, D).
        mask: Nonzero for real tokens; None where all are real.

    Raises:
        ConfigError: Padding is on the left. `batch_texts` pads on the right, which would change the tokens' positions.
    """
    import torch

    if mask is None:
        return [{key: row} for row in embeds]
    real = mask.bool()
    lengths = real.sum(dim=1)  # (B,)
    expected = torch.arange(real.shape[1], device=real.device) < lengths[:, None]
    if not torch.equal(real, expected):
        raise ConfigError(
            f"{key}: the pipeline's tokenizer pads on the left; padding on the right was expected: "
            'set "padding_side": "right" in its tokenizer_config.json'
        )
    return [{key: row[:length]} for row, length in zip(embeds, lengths.tolist(), strict=True)]
