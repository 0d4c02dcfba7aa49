"""What a family of models says about its encodings: how its pipeline makes them, and what training makes of them.

A family holds no model. The first half of its methods is given a loaded pipeline or autoencoder and returns records;
the second half turns records back into what the transformer takes, and needs nothing but the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from calotype.errors import ConfigError
from calotype.types import Geometry

__all__ = ["Family", "TextTensor", "TokenCount", "count_tokens", "sample_moments", "split", "trim"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTensor:
    """One tensor of a text's record, and of a batch."""

    key: str
    """As diffusers names it: `prompt_embeds`."""

    mask: str | None = None
    """The batch's key for the mask of real tokens. With one, a record holds real tokens only and each has its own
    length; None means that the transformer attends to all positions, so all are kept."""

    mask_dtype: torch.dtype | None = torch.int64
    """Of that mask, as the pipeline gives it; None is the tensor's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCount:
    """One tokenizer's view of some texts."""

    tokenizer: str
    """The pipeline's name for it: `tokenizer_2`."""

    limit: int
    """Tokens it is cut to, those that frame it included."""

    tokens: Sequence[int]
    """What each text would take."""


class Family:
    """The base of each family; what it does is right for an `AutoencoderKL` with one scaling factor and one shift.

    Subclasses set `pipelines` and `texts`, write `encode_prompt`, and replace what is different.
    """

    version: ClassVar[int] = 1
    """Part of every fingerprint: raise it when a change here changes a record."""

    pipelines: ClassVar[tuple[str, ...]]
    """diffusers' classes whose `model_index.json` this family reads, the one that encodes first."""

    load_options: ClassVar[Mapping[str, Any]] = {}
    """What that class's `from_pretrained` is given besides."""

    texts: ClassVar[tuple[TextTensor, ...]]
    """What a text's record holds."""

    upcast: ClassVar[bool] = False
    """Whether the pipeline encodes pictures in float32 where its autoencoder's config says `force_upcast`."""

    # -- With the models ---------------------------------------------------------------------------------------------

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
        raise NotImplementedError

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        """How many tokens each text takes, by each of the pipeline's tokenizers; no model is needed."""
        raise NotImplementedError

    def encode(self, vae: Any, img: Tensor, *, latents: Literal["moments", "mean"]) -> dict[str, Tensor]:
        """Records of pictures, stacked: `moments` (B, 2C, h, w), or `latents` (B, C, h, w).

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
        batch: dict[str, Tensor] = {}
        for field in self.texts:
            tensors = [record[field.key] for record in records]
            if field.mask is None:
                batch[field.key] = torch.stack(tensors)
                continue
            longest = max(len(tensor) for tensor in tensors)
            if length is not None and longest > length:
                raise ConfigError(f"length: {length} tokens were asked for, and a text's {field.key} has {longest}")
            first = tensors[0]
            padded = first.new_zeros((len(tensors), length or longest, *first.shape[1:]))
            mask = torch.zeros(padded.shape[:2], dtype=field.mask_dtype or first.dtype, device=first.device)
            for row, tensor in enumerate(tensors):
                padded[row, : len(tensor)] = tensor
                mask[row, : len(tensor)] = 1
            batch |= {field.key: padded, field.mask: mask}
        return batch

    def conditioning(self, geometry: Geometry) -> dict[str, Tensor]:
        """What else the model is told about a picture; nothing, for most."""
        return {}


def sample_moments(moments: Tensor, noise: Tensor) -> Tensor:
    """Draws from posteriors as diffusers' `DiagonalGaussianDistribution.sample` does: mean + std · noise, float32.

    Args:
        moments: (B, 2C, …), mean and log variance one after the other.
        noise: (B, C, …), standard normal.
    """
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
