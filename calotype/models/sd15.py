"""Stable Diffusion 1.5: CLIP-L's 77 positions, and four latent channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from calotype.models.family import ModelFamily, split
from calotype.models.network import UNET_ATTENTION, Kohya, Network, OriginalLayer
from calotype.models.objectives import Denoising
from calotype.models.spec import (
    CLIP_L_PARAMETERS,
    CLIP_TOKENS,
    EncodingSpec,
    ModelSpec,
    TextOutput,
    TokenizerSpec,
)
from calotype.models.transform import TokenTransform

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["FAMILY", "SD15", "SD15Transform", "predict_sd15"]

_SD15: Final = ModelSpec(
    name="sd-1.5",
    hub=("stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
    frozen_bytes=830_000_000,
    network_bytes=3_440_000_000,
    family="sd-1",
    resolution=512,
    multiple=8,
    tokenizers=(TokenizerSpec(name="clip", kind="clip", subfolder="tokenizer", former_option="tokenizer_path"),),
    encodings=EncodingSpec(
        latent_channels=4,
        texts=(TextOutput(key="prompt_embeds", tokens=CLIP_TOKENS, width=768),),
        text_flops=2.0 * CLIP_L_PARAMETERS * CLIP_TOKENS,
    ),
    architecture="stable-diffusion-v1",
)


class SD15Transform(TokenTransform):
    """Pixels and tokens for Stable Diffusion 1.x, tokenized as by diffusers' `StableDiffusionPipeline`.

    Output: `img`; `clip_text_tokens` int64 (77,).

    Args:
        clip_tokenizer_path: CLIP-L's tokenizer, any form that `load_tokenizer` takes.
        tokenizer_path: Deprecated name of `clip_tokenizer_path`.

    Raises:
        MissingTokenizerError: There is no tokenizer at the path; the message says how to get it.
        ConfigError: No path is given, or the files are another tokenizer's.
    """

    def __init__(
        self, clip_tokenizer_path: str | Path | None = None, *, tokenizer_path: str | Path | None = None
    ) -> None:
        super().__init__(_SD15, {"clip_tokenizer_path": clip_tokenizer_path, "tokenizer_path": tokenizer_path})


class SD15(ModelFamily):
    """Text: `prompt_embeds` (77, 768). Image: 4 channels at 1/8.

    Latents: `z * scaling_factor` (examples/text_to_image/train_text_to_image.py).
    """

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, _ = pipe.encode_prompt(
            list(texts), device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return split({"prompt_embeds": prompt_embeds})


def predict_sd15(unet: Any, x_t: Tensor, times: Tensor, texts: Mapping[str, Tensor], guidance: float | None) -> Tensor:
    """Call SD 1.5's U-Net, whose only condition is the text.

    Args:
        unet: A `UNet2DConditionModel`, wrapped or not.
        x_t: (B, 4, h, w).
        times: Steps of the schedule (B,), int64.
        texts: `prompt_embeds` (B, T, D).
        guidance: Not used.

    Returns:
        The prediction (B, 4, h, w).
    """
    prediction: Tensor = unet(x_t, times, encoder_hidden_states=texts["prompt_embeds"], return_dict=False)[0]
    return prediction


def _original_layer(layer: str, config: Any) -> OriginalLayer:
    """Return the layer under its diffusers path, which sd-scripts uses for SD 1.5."""
    return OriginalLayer(layer, (layer,))


FAMILY: Final = SD15(
    name="sd-1",
    models=(_SD15,),
    pipelines=("StableDiffusionPipeline",),
    load_options={"requires_safety_checker": False},
    transform=SD15Transform,
    network=Network(
        predict=predict_sd15,
        lora_targets=UNET_ATTENTION,
        lora_format="kohya",
        kohya=Kohya(original_layer=_original_layer, base_model="sd_v1"),
        component="unet",
        objective=Denoising,
        negative=True,
    ),
)
