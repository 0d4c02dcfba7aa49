"""FLUX.1: T5's whole sequence, since its transformer attends to the padding too, and CLIP-L's pooled vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from calotype.models.family import ModelFamily, split
from calotype.models.network import ATTENTION, QKV, QKV_ADDED, Blocks, Kohya, Network, OriginalLayer, layer_in_blocks
from calotype.models.spec import (
    CLIP_L_PARAMETERS,
    CLIP_TOKENS,
    T5_XXL_PARAMETERS,
    EncodingSpec,
    ModelSpec,
    TextOutput,
    TokenizerSpec,
)
from calotype.models.transform import TokenTransform

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["FAMILY", "Flux", "FluxTransform", "predict_flux"]


def _flux(name: str, hub: str, *, t5_tokens: int, guidance_embeds: bool, architecture: str) -> ModelSpec:
    """Return the spec of a FLUX.1 model; `t5_tokens` is both the default and the maximum length."""
    return ModelSpec(
        name=name,
        hub=(hub,),
        family="flux.1",
        resolution=1024,
        multiple=16,
        tokenizers=(
            TokenizerSpec(name="clip", kind="clip", subfolder="tokenizer"),
            TokenizerSpec(
                name="t5",
                kind="t5",
                subfolder="tokenizer_2",
                max_length=t5_tokens,
                limit=t5_tokens,
                adjustable=True,
            ),
        ),
        encodings=EncodingSpec(
            latent_channels=16,
            texts=(
                TextOutput(key="prompt_embeds", tokens=t5_tokens, width=4096),
                TextOutput(key="pooled_prompt_embeds", tokens=None, width=768),
            ),
            text_flops=2.0 * (T5_XXL_PARAMETERS * t5_tokens + CLIP_L_PARAMETERS * CLIP_TOKENS),
        ),
        frozen_bytes=9_940_000_000,
        network_bytes=23_800_000_000,
        guidance_embeds=guidance_embeds,
        architecture=architecture,
    )


_DEV: Final = _flux(
    "flux.1-dev",
    "black-forest-labs/FLUX.1-dev",
    t5_tokens=512,
    guidance_embeds=True,
    architecture="flux-1-dev",
)
_SCHNELL: Final = _flux(
    "flux.1-schnell",
    "black-forest-labs/FLUX.1-schnell",
    t5_tokens=256,
    guidance_embeds=False,
    architecture="flux-1-schnell",
)


class FluxTransform(TokenTransform):
    """Pixels and tokens for FLUX.1, tokenized as by diffusers' `FluxPipeline`.

    Output: `img`; `clip_text_tokens` int64 (77,); `t5_text_tokens` int64 (t5_max_seq_len,).

    Args:
        clip_tokenizer_path: CLIP-L's tokenizer (the pipeline's `tokenizer`), any form that `load_tokenizer` takes.
        t5_tokenizer_path: T5's tokenizer (the pipeline's `tokenizer_2`).
        t5_max_seq_len: Length of `t5_text_tokens`: up to 512 for FLUX.1-dev, up to 256 for FLUX.1-schnell.

    Raises:
        MissingTokenizerError: There is no tokenizer at a path; the message says how to get it.
        ConfigError: The files are another tokenizer's, or `t5_max_seq_len` is more than FLUX.1 takes.
    """

    def __init__(
        self, clip_tokenizer_path: str | Path, t5_tokenizer_path: str | Path, t5_max_seq_len: int = 512
    ) -> None:
        super().__init__(
            _DEV,
            {"clip_tokenizer_path": clip_tokenizer_path, "t5_tokenizer_path": t5_tokenizer_path},
            t5_max_seq_len=t5_max_seq_len,
        )


class Flux(ModelFamily):
    """Text: `prompt_embeds` (T, 4096), `pooled_prompt_embeds` (768,). Image: 16 channels at 1/8.

    `text_ids` are zeros of shape (T, 3) and are not stored. Latents: `(z - shift_factor) * scaling_factor`
    (examples/dreambooth/train_dreambooth_lora_flux.py).
    """

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, pooled, _ = pipe.encode_prompt(
            list(texts), None, device=device, max_sequence_length=max_sequence_length
        )
        return split({"prompt_embeds": prompt_embeds, "pooled_prompt_embeds": pooled})


def predict_flux(
    transformer: Any, x_t: Tensor, times: Tensor, texts: Mapping[str, Tensor], guidance: float | None
) -> Tensor:
    """Call FLUX.1's transformer on latents packed as by `FluxPipeline`: a token for each patch of 2 × 2.

    Args:
        transformer: A `FluxTransformer2DModel`, wrapped or not.
        x_t: (B, C, h, w).
        times: (B,), 0 to 1.
        texts: `prompt_embeds` (B, T, D), `pooled_prompt_embeds` (B, P).
        guidance: Guidance scale, which the transformer embeds; None for a model without this input (schnell).

    Returns:
        The prediction (B, C, h, w).
    """
    import torch

    # Pack the latents: the position of each token is in `img_ids`.
    batch, channels, height, width = x_t.shape
    rows, columns = height // 2, width // 2
    tokens = x_t.view(batch, channels, rows, 2, columns, 2)
    tokens = tokens.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, rows * columns, 4C)
    img_ids = torch.zeros(rows, columns, 3, device=x_t.device)  # (0, row, column)
    img_ids[..., 1] = torch.arange(rows, device=x_t.device)[:, None]
    img_ids[..., 2] = torch.arange(columns, device=x_t.device)[None, :]

    embeds = texts["prompt_embeds"]  # (B, T, D)
    prediction: Tensor = transformer(
        hidden_states=tokens,
        timestep=times,
        guidance=None if guidance is None else torch.full_like(times, guidance),
        pooled_projections=texts["pooled_prompt_embeds"],
        encoder_hidden_states=embeds,
        txt_ids=torch.zeros(embeds.shape[1], 3, device=x_t.device),
        img_ids=img_ids.flatten(0, 1),
        return_dict=False,
    )[0]

    # Unpack the prediction (B, rows * columns, 4C).
    prediction = prediction.view(batch, rows, columns, channels, 2, 2)
    return prediction.permute(0, 3, 1, 4, 2, 5).reshape(x_t.shape)  # (B, C, h, w)


_BLOCKS: Final[Blocks] = {
    "transformer_blocks": (
        "double_blocks",
        {
            "img_attn.qkv": QKV,
            "img_attn.proj": ("attn.to_out.0",),
            "img_mlp.0": ("ff.net.0.proj",),
            "img_mlp.2": ("ff.net.2",),
            "img_mod.lin": ("norm1.linear",),
            "txt_attn.qkv": QKV_ADDED,
            "txt_attn.proj": ("attn.to_add_out",),
            "txt_mlp.0": ("ff_context.net.0.proj",),
            "txt_mlp.2": ("ff_context.net.2",),
            "txt_mod.lin": ("norm1_context.linear",),
        },
    ),
    "single_transformer_blocks": (
        "single_blocks",
        {"linear1": (*QKV, "proj_mlp"), "linear2": ("proj_out",), "modulation.lin": ("norm.linear",)},
    ),
}
"""Layers of black-forest-labs/flux."""


def _original_layer(layer: str, config: Any) -> OriginalLayer | None:
    return layer_in_blocks(layer, _BLOCKS)


FAMILY: Final = Flux(
    name="flux.1",
    models=(_DEV, _SCHNELL),
    pipelines=("FluxPipeline", "FluxImg2ImgPipeline", "FluxFillPipeline", "FluxKontextPipeline"),
    transform=FluxTransform,
    network=Network(
        predict=predict_flux,
        lora_targets=(*ATTENTION, "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        kohya=Kohya(original_layer=_original_layer, base_model="flux1", module="networks.lora_flux"),
    ),
)
