"""Stable Diffusion XL: both CLIPs' embeddings concatenated, CLIP-G's pooled vector, and size conditioning."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from calotype.errors import ConfigError
from calotype.models.family import ModelFamily, split
from calotype.models.network import UNET_ATTENTION, Kohya, Network, OriginalLayer
from calotype.models.objectives import Denoising
from calotype.models.spec import (
    CLIP_G_PARAMETERS,
    CLIP_L_PARAMETERS,
    CLIP_TOKENS,
    EncodingSpec,
    ModelSpec,
    TextOutput,
    TokenizerSpec,
)
from calotype.models.transform import TokenTransform
from calotype.types import Geometry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["FAMILY", "SDXL", "SDXLTransform", "predict_sdxl", "size_conditioning"]

_SDXL: Final = ModelSpec(
    name="sdxl",
    hub=("stabilityai/stable-diffusion-xl-base-1.0",),
    frozen_bytes=3_610_000_000,
    network_bytes=10_270_000_000,
    family="sdxl",
    resolution=1024,
    multiple=8,
    tokenizers=(
        TokenizerSpec(name="clip_l", kind="clip", subfolder="tokenizer", former_option="tokenizer_path"),
        TokenizerSpec(
            name="clip_g", kind="clip", subfolder="tokenizer_2", pad_token="!", former_option="tokenizer_2_path"
        ),
    ),
    encodings=EncodingSpec(
        latent_channels=4,
        texts=(
            TextOutput(key="prompt_embeds", tokens=CLIP_TOKENS, width=768 + 1280),
            TextOutput(key="pooled_prompt_embeds", tokens=None, width=1280),
        ),
        text_flops=2.0 * (CLIP_L_PARAMETERS + CLIP_G_PARAMETERS) * CLIP_TOKENS,
    ),
    architecture="stable-diffusion-xl-v1-base",
)


class SDXLTransform(TokenTransform):
    """Pixels, tokens and size conditioning for SDXL, as diffusers' `StableDiffusionXLPipeline` takes them.

    Output: `img`; `clip_l_text_tokens` and `clip_g_text_tokens` int64 (77,); `original_size`, `crop_top_left` and
    `target_size` int64 (2,), (height, width) or (top, left) in pixels: concatenated in this order they are the
    pipeline's `add_time_ids`. The first two come from the sample's `geometry`; without one, the image counts as
    uncropped and in its original size. Where a callable changed the size, it counts as uncropped.

    Args:
        clip_l_tokenizer_path: CLIP-L's tokenizer (the pipeline's `tokenizer`), any form that `load_tokenizer` takes.
        clip_g_tokenizer_path: CLIP-G's tokenizer (`tokenizer_2`), which pads with `!` (id 0).
        tokenizer_path: Deprecated name of `clip_l_tokenizer_path`.
        tokenizer_2_path: Deprecated name of `clip_g_tokenizer_path`.

    Raises:
        MissingTokenizerError: There is no tokenizer at a path; the message says how to get it.
        ConfigError: A path is not given, or the files are another tokenizer's.
    """

    def __init__(
        self,
        clip_l_tokenizer_path: str | Path | None = None,
        clip_g_tokenizer_path: str | Path | None = None,
        *,
        tokenizer_path: str | Path | None = None,
        tokenizer_2_path: str | Path | None = None,
    ) -> None:
        paths = {
            "clip_l_tokenizer_path": clip_l_tokenizer_path,
            "clip_g_tokenizer_path": clip_g_tokenizer_path,
            "tokenizer_path": tokenizer_path,
            "tokenizer_2_path": tokenizer_2_path,
        }
        super().__init__(_SDXL, paths)

    def prepare(self, sample: Mapping[str, Any], /) -> dict[str, Any]:
        """Tokenize `text` and add the sizes; `img` stays uint8.

        Raises:
            ConfigError: `image`, `text` or `geometry` has a wrong type or shape; names the sample.
        """
        prepared = super().prepare(sample)
        geometry = sample.get("geometry")
        if geometry is not None and not isinstance(geometry, Geometry):
            raise ConfigError(
                f"geometry of {sample.get('id', 'a sample')!r}: a calotype.types.Geometry was expected, "
                f"found {type(geometry).__name__}"
            )
        return prepared | size_conditioning(geometry, tuple(prepared["img"].shape[-2:]))


def size_conditioning(geometry: Geometry | None, target_size: tuple[int, ...]) -> dict[str, Tensor]:
    """Return SDXL's micro-conditioning of one image.

    Args:
        geometry: How the image was resized and cropped; None counts as uncropped and in its original size.
        target_size: (height, width) of the image in pixels. Where it differs from the geometry's, a callable changed
            the size: its crop is unknown and counts as (0, 0).

    Returns:
        `original_size`, `crop_top_left` and `target_size`, int64 (2,): concatenated, the pipeline's `add_time_ids`.
    """
    import torch

    original_size: tuple[int, ...] = target_size if geometry is None else geometry.original_size
    crop_top_left = (0, 0)
    if geometry is not None and tuple(geometry.target_size) == tuple(target_size):
        crop_top_left = geometry.crop_top_left
    sizes = {"original_size": original_size, "crop_top_left": crop_top_left, "target_size": target_size}
    return {key: torch.tensor(value, dtype=torch.int64) for key, value in sizes.items()}


class SDXL(ModelFamily):
    """Text: `prompt_embeds` (77, 2048), `pooled_prompt_embeds` (1280,). Image: 4 channels at 1/8.

    The pipeline's autoencoder overflows in float16, so where its config says `force_upcast` it encodes in float32, as
    `StableDiffusionXLImg2ImgPipeline.prepare_latents` does; only the result is rounded.

    Latents: `z * scaling_factor`, or `(z - latents_mean) * scaling_factor / latents_std` where the config has them
    (examples/dreambooth/train_dreambooth_lora_sdxl.py).
    """

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, _, pooled, _ = pipe.encode_prompt(list(texts), device=device, do_classifier_free_guidance=False)
        return split({"prompt_embeds": prompt_embeds, "pooled_prompt_embeds": pooled})

    def scaling(self, vae: Any) -> dict[str, Tensor]:
        import torch

        found = super().scaling(vae)
        found.pop("shift_factor", None)
        if vae.config.latents_mean is not None and vae.config.latents_std is not None:
            found["latents_mean"] = torch.tensor(vae.config.latents_mean, dtype=torch.float32)
            found["latents_std"] = torch.tensor(vae.config.latents_std, dtype=torch.float32)
        return found

    def latents(self, raw: Tensor, scaling: Mapping[str, Tensor]) -> Tensor:
        if "latents_mean" not in scaling:
            return super().latents(raw, scaling)
        mean, std = (scaling[name].to(raw.device).view(1, -1, 1, 1) for name in ("latents_mean", "latents_std"))
        return (raw.float() - mean) * scaling["scaling_factor"].to(raw.device) / std

    def conditioning(self, geometry: Geometry) -> dict[str, Tensor]:
        """Return `original_size`, `crop_top_left` and `target_size`, int64 (2,), in pixels."""
        return size_conditioning(geometry, geometry.target_size)


def predict_sdxl(unet: Any, x_t: Tensor, times: Tensor, texts: Mapping[str, Tensor], guidance: float | None) -> Tensor:
    """Call SDXL's U-Net, which takes the sizes as `time_ids` (B, 6) and the pooled text as `text_embeds`.

    Args:
        unet: A `UNet2DConditionModel`, wrapped or not.
        x_t: (B, C, h, w).
        times: Steps of the schedule (B,), int64.
        texts: `prompt_embeds` (B, T, D), `pooled_prompt_embeds` (B, P); `original_size`, `crop_top_left` and
            `target_size`, each (B, 2), (height, width) or (top, left) in pixels.
        guidance: Not used.

    Returns:
        The prediction (B, C, h, w).
    """
    import torch

    pooled = texts["pooled_prompt_embeds"]
    sizes = torch.cat([texts["original_size"], texts["crop_top_left"], texts["target_size"]], dim=1)  # (B, 6)
    prediction: Tensor = unet(
        x_t,
        times,
        encoder_hidden_states=texts["prompt_embeds"],
        # float32: bfloat16 would round 1023 to 1024
        added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes.to(pooled.device, torch.float32)},
        return_dict=False,
    )[0]
    return prediction


_RESNET: Final = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_SINGLE: Final = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def _original_layer(layer: str, config: Any) -> OriginalLayer | None:
    """Return the layer of Stability AI's generative-models; None where it has none."""
    each = config.layers_per_block + 1  # input or output blocks of a resolution level
    if layer in _SINGLE:
        path = _SINGLE[layer]
    elif found := re.fullmatch(r"mid_block\.(attentions|resnets)\.(\d+)\.(.+)", layer):
        kind, number, rest = found.groups()
        path = f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}.{_RESNET.get(rest, rest)}"
    elif found := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(attentions|resnets)\.(\d+)\.(.+)", layer):
        side, level, kind, number, rest = found.groups()
        at = int(level) * each + int(number) + (side == "down")
        side = "input" if side == "down" else "output"
        path = f"{side}_blocks.{at}.{1 if kind == 'attentions' else 0}.{_RESNET.get(rest, rest)}"
    elif found := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", layer):
        path = f"input_blocks.{(int(found[1]) + 1) * each}.0.op"
    elif found := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", layer):
        attends = "CrossAttn" in config.up_block_types[int(found[1])]
        path = f"output_blocks.{(int(found[1]) + 1) * each - 1}.{2 if attends else 1}.conv"
    else:
        return None
    return OriginalLayer(path, (layer,))


FAMILY: Final = SDXL(
    name="sdxl",
    models=(_SDXL,),
    pipelines=("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
    load_options={"add_watermarker": False},
    upcast=True,
    transform=SDXLTransform,
    network=Network(
        predict=predict_sdxl,
        lora_targets=UNET_ATTENTION,
        lora_format="kohya",
        kohya=Kohya(original_layer=_original_layer, base_model="sdxl_base_v1-0"),
        component="unet",
        objective=Denoising,
        conditioning=("original_size", "crop_top_left", "target_size"),
        negative=True,
    ),
)
