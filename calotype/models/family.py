"""All that is known of a family of models, in one record: facts, tokens, frozen encoders, network.

A family holds no model. Of its methods the first half gets a loaded pipeline or autoencoder and returns records; the
second half turns records back into what the transformer takes, and needs nothing but the records. Importing a family
loads neither torch nor diffusers: its methods import what they need.
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
    """How many tokens texts take of one tokenizer."""

    tokenizer: str
    """The pipeline's name for it: `tokenizer_2`."""

    limit: int
    """Tokens it is cut to, those that frame it included."""

    tokens: Sequence[int]
    """What each text would take."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelFamily(ABC):
    """The base of each family; its methods are right for an `AutoencoderKL` with one scaling factor and one shift.

    A subclass writes `encode_prompt`, and `token_counts` where its models' specs name no tokenizers, and replaces what
    is different. Its one instance holds the facts, and `calotype.models.register` or an entry point makes it known
    (docs/families.md).

    Raises:
        ConfigError: A model's spec does not fit the family.
    """

    name: str
    """`flux.1`."""

    models: tuple[ModelSpec, ...]
    """Those of this family; a pipeline that does not say which it is counts as the first."""

    pipelines: tuple[str, ...]
    """diffusers' classes whose `model_index.json` this family reads, the one that encodes first."""

    load_options: Mapping[str, Any] = field(default_factory=dict)
    """What that class's `from_pretrained` is given besides."""

    upcast: bool = False
    """Whether the pipeline encodes images in float32 where its autoencoder's config says `force_upcast`."""

    version: int = 1
    """Part of every fingerprint: raise it when a change here changes a record."""

    transform: type[PixelsTransform] | None = None
    """A transform with a constructor of its own; None is `TokenTransform`, or the pixels alone without tokenizers."""

    network: Network | None = None
    """How its network is trained; None where `calotype train` does not."""

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
            if [(text.key, text.mask) for text in spec.encodings.texts] != [(t.key, t.mask) for t in self.texts]:
                raise ConfigError(
                    f"model family {self.name!r}: {spec.name!r} has other text tensors than the first model"
                )

    @property
    def texts(self) -> tuple[TextOutput, ...]:
        """What a text's record holds."""
        return self.models[0].encodings.texts

    @property
    def identity(self) -> str:
        """Part of every fingerprint: the class's name, for another package's with its module."""
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
        """Records of texts by the pipeline's own `encode_prompt`, without batch dimension and trimmed.

        Args:
            pipe: The loaded pipeline; of its models only the text encoders are there.
            texts: At least one.
            max_sequence_length: Tokens of a text, for a family that has a choice.
            device: Where the encoders are.
        """

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        """How many tokens each text takes, by each of the pipeline's tokenizers, where the models' specs name none.

        Where they do, texts are counted with calotype's own, as everywhere else. No model is needed.
        """
        raise NotImplementedError

    def encode(self, vae: Any, img: Tensor, *, latents: Literal["moments", "mean"]) -> dict[str, Tensor]:
        """Records of images, stacked: `moments` (B, 2C, h, w), or `latents` (B, C, h, w).

        Args:
            vae: The loaded autoencoder.
            img: (B, 3, H, W) in [-1, 1], in its dtype.
            latents: `moments` keeps the posterior's mean and log variance (`DiagonalGaussianDistribution.parameters`),
                `mean` only its mean. Both are unscaled.
        """
        posterior = vae.encode(img).latent_dist
        return {"moments": posterior.parameters} if latents == "moments" else {"latents": posterior.mode()}

    def scaling(self, vae: Any) -> dict[str, Tensor]:
        """The small float32 tensors that `latents` needs of the autoencoder."""
        import torch

        config = vae.config
        return {
            name: torch.tensor(value, dtype=torch.float32)
            for name in ("scaling_factor", "shift_factor")
            if (value := getattr(config, name, None)) is not None
        }

    # -- With the records ----------------------------------------------------------------------------------------------

    def latents(self, raw: Tensor, scaling: Mapping[str, Tensor]) -> Tensor:
        """What the transformer is trained on, as diffusers' training script for the family computes it.

        Args:
            raw: Unscaled latents (B, C, h, w) of any float dtype: a record's, or drawn by `sample_moments`.
            scaling: What `scaling` gave.

        Returns:
            float32 on `raw`'s device: rounded once, when it is cast for the transformer.
        """
        latents = raw.float()
        if "shift_factor" in scaling:
            latents = latents - scaling["shift_factor"].to(raw.device)
        return latents * scaling["scaling_factor"].to(raw.device)

    def batch_texts(self, records: Sequence[Mapping[str, Tensor]], *, length: int | None = None) -> dict[str, Tensor]:
        """A batch of texts' records, as `encode_prompt` would have given them together.

        Trimmed tensors are padded at the end with zeros, and their masks made.

        Args:
            records: At least one.
            length: Of the padded ones, in tokens; None is the longest of these records'.

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
                raise ConfigError(f"length: {length} tokens were asked for, and a text's {output.key} has {longest}")
            first = tensors[0]
            padded = first.new_zeros((len(tensors), length or longest, *first.shape[1:]))
            mask = torch.zeros(padded.shape[:2], dtype=output.mask_dtype, device=first.device)
            for row, tensor in enumerate(tensors):
                padded[row, : len(tensor)] = tensor
                mask[row, : len(tensor)] = 1
            batch |= {output.key: padded, output.mask: mask}
        return batch

    def conditioning(self, geometry: Geometry) -> dict[str, Tensor]:
        """What else the model is told about an image; nothing, for most."""
        return {}


def sample_moments(moments: Tensor, noise: Tensor) -> Tensor:
    """Draws from posteriors as diffusers' `DiagonalGaussianDistribution.sample` does: mean + std · noise, float32.

    Args:
        moments: (B, 2C, …), mean and log variance one after the other.
        noise: (B, C, …), standard normal.
    """
    import torch

    mean, logvar = moments.float().chunk(2, dim=1)
    return mean + torch.exp(0.5 * logvar.clamp(-30.0, 20.0)) * noise


def count_tokens(
    pipe: Any, tokenizer: str, prompts: Sequence[str], *, limit: int | None = None, framing: int = 0
) -> TokenCount:
    """What texts take of one of the pipeline's tokenizers.

    Args:
        pipe: A pipeline with its tokenizers.
        tokenizer: Its name there.
        prompts: The texts as the pipeline hands them to it.
        limit: Tokens that the pipeline leaves; None is the tokenizer's own `model_max_length`.
        framing: Tokens of each prompt that do not count against the limit.
    """
    loaded = getattr(pipe, tokenizer)
    tokens = [len(ids) - framing for ids in loaded(list(prompts), verbose=False).input_ids]
    return TokenCount(tokenizer=tokenizer, limit=limit or loaded.model_max_length, tokens=tokens)


def split(outputs: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """A batch's tensors → one record for each row."""
    rows = len(next(iter(outputs.values())))
    return [{key: value[row] for key, value in outputs.items()} for row in range(rows)]


def trim(key: str, embeds: Tensor, mask: Tensor | None) -> list[dict[str, Tensor]]:
    """A batch (B, L, D) → one record for each row, with the real tokens that its mask (B, L) shows.

    Args:
        key: Of the records' tensor.
        embeds: The pipeline's output.
        mask: Not zero where a token is real; None where all are.

    Raises:
        ConfigError: Padding stands before a text: put back behind it, its tokens would be in other places.
    """
    import torch

    if mask is None:
        return [{key: row} for row in embeds]
    real = mask.bool()
    lengths = real.sum(dim=1)
    expected = torch.arange(real.shape[1], device=real.device) < lengths[:, None]
    if not torch.equal(real, expected):
        raise ConfigError(
            f"{key}: the pipeline's tokenizer pads on the left; padding on the right was expected: "
            'set "padding_side": "right" in its tokenizer_config.json'
        )
    return [{key: row[:length]} for row, length in zip(embeds, lengths.tolist(), strict=True)]
