"""Qwen-Image: hidden states of Qwen2.5-VL, real tokens only, and a video autoencoder's latents of one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from calotype.models.family import ModelFamily, TokenCount, count_tokens, trim
from calotype.models.spec import EncodingSpec, ModelSpec, TextOutput

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["FAMILY", "QwenImage"]

_QWEN_2_5_VL_7B: Final = 6_525_621_760
"""Number of parameters, without embeddings."""

_QWEN_IMAGE: Final = ModelSpec(
    name="qwen-image",
    hub=("Qwen/Qwen-Image",),
    frozen_bytes=16_800_000_000,
    family="qwen-image",
    resolution=1328,
    multiple=16,
    encodings=EncodingSpec(
        latent_channels=16,
        texts=(TextOutput(key="prompt_embeds", tokens=512, width=3584, mask="prompt_embeds_mask"),),
        # The system prompt's 34 tokens are encoded too; the pipeline removes them from the output.
        text_flops=2.0 * _QWEN_2_5_VL_7B * (34 + 512),
        sequence_length=512,
        longest_sequence=1024,
        autoencoder_flops=7.0e6,
    ),
)


class QwenImage(ModelFamily):
    """Text: `prompt_embeds` (n, 3584) with `prompt_embeds_mask`. Image: 16 channels at 1/8.

    The transformer masks the padding; the pipeline returns no mask for a batch without any. Latents are
    (B, C, 1, h, w), normalized by channel: `(z - latents_mean) * (1 / latents_std)`
    (examples/dreambooth/train_dreambooth_lora_qwen_image.py).
    """

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, mask = pipe.encode_prompt(list(texts), device=device, max_sequence_length=max_sequence_length)
        return trim("prompt_embeds", prompt_embeds, mask)

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        template, dropped = pipe.prompt_template_encode, pipe.prompt_template_encode_start_idx
        prompts = [template.format(text) for text in texts]
        return [count_tokens(pipe, "tokenizer", prompts, limit=max_sequence_length, framing=dropped)]

    def encode(self, vae: Any, img: Tensor, *, latents: Literal["moments", "mean"]) -> dict[str, Tensor]:
        records = super().encode(vae, img.unsqueeze(2), latents=latents)  # (B, 3, 1, H, W): a video of one frame
        return {key: value.squeeze(2) for key, value in records.items()}

    def scaling(self, vae: Any) -> dict[str, Tensor]:
        import torch

        return {
            "latents_mean": torch.tensor(vae.config.latents_mean, dtype=torch.float32),
            "latents_std": torch.tensor(vae.config.latents_std, dtype=torch.float32),
        }

    def latents(self, raw: Tensor, scaling: Mapping[str, Tensor]) -> Tensor:
        mean, std = (scaling[name].to(raw.device).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
        return (raw.float().unsqueeze(2) - mean) * (1.0 / std)  # (B, C, h, w) → (B, C, 1, h, w)


FAMILY: Final = QwenImage(
    name="qwen-image", models=(_QWEN_IMAGE,), pipelines=("QwenImagePipeline", "QwenImageImg2ImgPipeline")
)
