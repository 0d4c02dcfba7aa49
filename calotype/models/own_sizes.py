"""Sizes and costs of a pipeline's own encoders, which may be smaller than its model's: from configs and headers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from calotype.models.component_files import WEIGHTS, files_that_count
from calotype.models.json_file import component_config
from calotype.models.safetensors_header import header_of
from calotype.models.spec import EncodingSpec, ModelSpec

__all__ = ["count_parameters", "own_encodings"]

_WIDTHS: Final = {
    "prompt_embeds": ("joint_attention_dim", "cross_attention_dim", "caption_channels", "cap_feat_dim"),
    "pooled_prompt_embeds": ("pooled_projection_dim",),
}
"""A text's output → the names of its width in the configs of the networks that take it."""
_CHANNELS: Final = (128, 256, 512, 512)
"""Of the autoencoder whose FLOPs the spec has."""
_EMBEDDINGS: Final = ("shared.weight", "embed_tokens.weight", "token_embedding.weight", "position_embedding.weight")
"""Ends of the names of tables, in which a token's row is looked up."""


def count_parameters(folder: Path, *, variant: str | None = None, tables: bool = True) -> int:
    """Count the parameters of a component by the headers of its files; 0 if it has none or they can't be read.

    Args:
        folder: The component's folder.
        variant: Variant of the weights.
        tables: Whether embeddings are counted, which take memory and no operations.
    """
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    total = 0
    for name in files_that_count(names, variant=variant):
        if not name.endswith(WEIGHTS[0]):
            continue
        try:
            with (folder / name).open("rb") as file:
                _, header = header_of(file) or (0, {})
        except OSError:
            return 0
        total += sum(
            math.prod(entry["shape"])
            for key, entry in header.items()
            if isinstance(entry, Mapping) and "shape" in entry and (tables or not key.endswith(_EMBEDDINGS))
        )
    return total


def own_encodings(spec: ModelSpec, folder: Path, text_encoders: Sequence[str], *, variant: str | None) -> EncodingSpec:
    """Return the sizes and costs of a pipeline's encodings; what its files don't say is its model's.

    Args:
        spec: Its model.
        folder: Its folder.
        text_encoders: Names of its text encoders.
        variant: Variant of the weights.
    """
    facts = spec.encodings
    network = {**component_config(folder / "unet"), **component_config(folder / "transformer")}
    widths = {key: next((network[name] for name in names if name in network), None) for key, names in _WIDTHS.items()}
    texts = tuple(
        replace(output, width=width) if isinstance(width := widths.get(output.key), int) else output
        for output in facts.texts
    )
    operations = 0.0
    for name in text_encoders:
        parameters = count_parameters(folder / name, variant=variant, tables=False)
        operations += 2.0 * parameters * _tokens(spec, name)
    vae = component_config(folder / "vae")
    channels, latents = vae.get("block_out_channels"), vae.get("latent_channels")
    flops, factor = facts.autoencoder_flops, facts.latent_factor
    standard = EncodingSpec.__dataclass_fields__["autoencoder_flops"].default
    if isinstance(channels, list) and flops == standard:
        flops *= _convolutions(channels, vae.get("layers_per_block", 2)) / _convolutions(_CHANNELS, 2)
        factor = 2 ** (len(channels) - 1)
    return replace(
        facts,
        texts=texts,
        text_flops=operations or facts.text_flops,
        latent_channels=latents if isinstance(latents, int) else facts.latent_channels,
        latent_factor=factor,
        autoencoder_flops=flops,
    )


def _tokens(spec: ModelSpec, encoder: str) -> int:
    """Return the tokens of a text that an encoder computes on."""
    subfolder = encoder.replace("text_encoder", "tokenizer")
    found = next((one.max_length for one in spec.tokenizers if one.subfolder == subfolder), None)
    return found or spec.sequence_length or max(output.tokens or 1 for output in spec.encodings.texts)


def _convolutions(channels: Sequence[int], layers: int) -> float:
    """Return the FLOPs per pixel of the encoder's residual blocks, two convolutions of 3 × 3 in each."""
    total, before = 0.0, channels[0]
    for level, width in enumerate(channels):
        total += 18.0 * (before * width + (2 * layers - 1) * width * width) / 4**level
        before = width
    return total
