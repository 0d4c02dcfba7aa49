"""Stable Diffusion 3 and 3.5: embeddings of both CLIPs and T5 in one sequence, and both pooled vectors concatenated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from calotype.models.family import ModelFamily, split
from calotype.models.network import ATTENTION, QKV, QKV_ADDED, Blocks, Kohya, Network, OriginalLayer, layer_in_blocks
from calotype.models.spec import (
    CLIP_G_PARAMETERS,
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

__all__ = ["FAMILY", "SD3", "SD3Transform", "predict_sd3"]

_T5_TOKENS: Final = 256
"""Default length of T5's sequence, as in the pipeline."""
_MOST_T5_TOKENS: Final = 512


def _sd3(name: str, hub: str, *, network_bytes: int) -> ModelSpec:
    return ModelSpec(
        name=name,
        hub=(hub,),
        family="sd3",
        frozen_bytes=11_300_000_000,
        network_bytes=network_bytes,
        resolution=1024,
        multiple=16,
        tokenizers=(
            TokenizerSpec(name="clip_l", kind="clip", subfolder="tokenizer", former_option="tokenizer_path"),
            TokenizerSpec(
                name="clip_g",
                kind="clip",
                subfolder="tokenizer_2",
                pad_token="!",
                former_option="tokenizer_2_path",
            ),
            TokenizerSpec(
                name="t5",
                kind="t5",
                subfolder="tokenizer_3",
                max_length=_T5_TOKENS,
                limit=_MOST_T5_TOKENS,
                adjustable=True,
                former_option="tokenizer_3_path",
            ),
        ),
        encodings=EncodingSpec(
            latent_channels=16,
            texts=(
                # Both CLIPs, concatenated by channel and padded to T5's width, then T5 along the sequence.
                TextOutput(key="prompt_embeds", tokens=CLIP_TOKENS + _T5_TOKENS, width=4096),
                TextOutput(key="pooled_prompt_embeds", tokens=None, width=768 + 1280),
            ),
            text_flops=2.0 * (T5_XXL_PARAMETERS * _T5_TOKENS + (CLIP_L_PARAMETERS + CLIP_G_PARAMETERS) * CLIP_TOKENS),
        ),
        architecture="stable-diffusion-3",
    )


_MEDIUM: Final = _sd3("sd3-medium", "stabilityai/stable-diffusion-3-medium-diffusers", network_bytes=4_170_000_000)
_MEDIUM_3_5: Final = _sd3("sd3.5-medium", "stabilityai/stable-diffusion-3.5-medium", network_bytes=4_940_000_000)
_LARGE: Final = _sd3("sd3.5-large", "stabilityai/stable-diffusion-3.5-large", network_bytes=16_300_000_000)


class SD3Transform(TokenTransform):
    """Pixels and tokens for SD3 and SD3.5, tokenized as by diffusers' `StableDiffusion3Pipeline`.

    Output: `img`; `clip_l_text_tokens` and `clip_g_text_tokens` int64 (77,); `t5_text_tokens` int64
    (t5_max_seq_len,).

    Args:
        clip_l_tokenizer_path: CLIP-L's tokenizer (the pipeline's `tokenizer`), any form that `load_tokenizer` takes.
        clip_g_tokenizer_path: CLIP-G's tokenizer (`tokenizer_2`), which pads with `!` (id 0).
        t5_tokenizer_path: T5's tokenizer (`tokenizer_3`).
        t5_max_seq_len: Length of `t5_text_tokens`, at most 512. 256 is the pipeline's default.
        tokenizer_path: Deprecated name of `clip_l_tokenizer_path`.
        tokenizer_2_path: Deprecated name of `clip_g_tokenizer_path`.
        tokenizer_3_path: Deprecated name of `t5_tokenizer_path`.

    Raises:
        MissingTokenizerError: There is no tokenizer at a path; the message says how to get it.
        ConfigError: A path is not given, the files are another tokenizer's, or `t5_max_seq_len` is more than the model
            takes.
    """

    def __init__(
        self,
        clip_l_tokenizer_path: str | Path | None = None,
        clip_g_tokenizer_path: str | Path | None = None,
        t5_tokenizer_path: str | Path | None = None,
        t5_max_seq_len: int = 256,
        *,
        tokenizer_path: str | Path | None = None,
        tokenizer_2_path: str | Path | None = None,
        tokenizer_3_path: str | Path | None = None,
    ) -> None:
        paths = {
            "clip_l_tokenizer_path": clip_l_tokenizer_path,
            "clip_g_tokenizer_path": clip_g_tokenizer_path,
            "t5_tokenizer_path": t5_tokenizer_path,
            "tokenizer_path": tokenizer_path,
            "tokenizer_2_path": tokenizer_2_path,
            "tokenizer_3_path": tokenizer_3_path,
        }
        super().__init__(_LARGE, paths, t5_max_seq_len=t5_max_seq_len)


class SD3(ModelFamily):
    """Text: `prompt_embeds` (77 + T, 4096), `pooled_prompt_embeds` (2048,). Image: 16 channels at 1/8.

    The transformer attends to all positions. Latents: `(z - shift_factor) * scaling_factor`
    (examples/dreambooth/train_dreambooth_lora_sd3.py).
    """

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, _, pooled, _ = pipe.encode_prompt(
            list(texts),
            None,
            None,
            device=device,
            do_classifier_free_guidance=False,
            max_sequence_length=max_sequence_length,
        )
        return split({"prompt_embeds": prompt_embeds, "pooled_prompt_embeds": pooled})


def predict_sd3(
    transformer: Any, x_t: Tensor, times: Tensor, texts: Mapping[str, Tensor], guidance: float | None
) -> Tensor:
    """Call SD3's transformer, which patchifies latents itself and takes timesteps from 0 to 1000.

    Args:
        transformer: A `SD3Transformer2DModel`, wrapped or not.
        x_t: (B, C, h, w).
        times: (B,), 0 to 1.
        texts: `prompt_embeds` (B, 77 + T, D), `pooled_prompt_embeds` (B, P).
        guidance: Not used.

    Returns:
        The prediction (B, C, h, w).
    """
    prediction: Tensor = transformer(
        hidden_states=x_t,
        timestep=1000.0 * times,
        encoder_hidden_states=texts["prompt_embeds"],
        pooled_projections=texts["pooled_prompt_embeds"],
        return_dict=False,
    )[0]
    return prediction


_BLOCKS: Final[Blocks] = {
    "transformer_blocks": (
        "joint_blocks",
        {
            "x_block.attn.qkv": QKV,
            "x_block.attn.proj": ("attn.to_out.0",),
            "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
            "x_block.attn2.proj": ("attn2.to_out.0",),
            "x_block.mlp.fc1": ("ff.net.0.proj",),
            "x_block.mlp.fc2": ("ff.net.2",),
            "context_block.attn.qkv": QKV_ADDED,
            "context_block.attn.proj": ("attn.to_add_out",),
            "context_block.mlp.fc1": ("ff_context.net.0.proj",),
            "context_block.mlp.fc2": ("ff_context.net.2",),
        },
    ),
}
"""Layers of Stability AI's sd3-ref."""


def _original_layer(layer: str, config: Any) -> OriginalLayer | None:
    return layer_in_blocks(layer, _BLOCKS)


FAMILY: Final = SD3(
    name="sd3",
    models=(_MEDIUM, _LARGE, _MEDIUM_3_5),
    pipelines=("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline"),
    transform=SD3Transform,
    network=Network(
        predict=predict_sd3,
        lora_targets=ATTENTION,
        kohya=Kohya(original_layer=_original_layer, base_model="sd3", module="networks.lora_sd3"),
        negative=True,
    ),
)
