"""FLUX.2: hidden states of three of Mistral's layers, concatenated, and latents normalized in patches of 2 × 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from calotype.models.family import ModelFamily, TokenCount, split
from calotype.models.spec import EncodingSpec, ModelSpec, TextOutput

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["FAMILY", "Flux2"]

_MISTRAL_SMALL: Final = 22_230_225_920
"""Number of parameters, without embeddings."""

_DEV: Final = ModelSpec(
    name="flux.2-dev",
    hub=("black-forest-labs/FLUX.2-dev",),
    frozen_bytes=48_200_000_000,
    family="flux.2",
    resolution=1024,
    multiple=16,
    guidance_embeds=True,
    encodings=EncodingSpec(
        latent_channels=32,
        texts=(TextOutput(key="prompt_embeds", tokens=512, width=3 * 5120),),
        text_flops=2.0 * _MISTRAL_SMALL * 512,
        sequence_length=512,
        longest_sequence=512,
    ),
)


class Flux2(ModelFamily):
    """Text: `prompt_embeds` (T, 15360). Image: 32 channels at 1/8; the transformer takes 128 at 1/16.

    The pipeline passes no mask to the transformer, so records have all positions: 15.7 MB for a text of 512 tokens in
    bfloat16. `text_ids` (B, T, 4) are the positions and are not stored (`Flux2Pipeline._prepare_text_ids`).

    Latents: patches of 2 × 2 become channels, each normalized by the statistics of the autoencoder's batch norm:
    `(z - mean) / sqrt(var + eps)` (examples/dreambooth/train_dreambooth_lora_flux2.py, which takes the posterior's
    mean: `latents="mean"`).
    """

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, _ = pipe.encode_prompt(list(texts), device=device, max_sequence_length=max_sequence_length)
        return split({"prompt_embeds": prompt_embeds})

    def token_counts(self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None) -> list[TokenCount]:
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input

        tokens = [
            len(
                pipe.tokenizer.apply_chat_template(
                    message, add_generation_prompt=False, tokenize=True, return_dict=True
                )["input_ids"][0]
            )
            for message in format_input(prompts=list(texts), system_message=pipe.system_message)
        ]
        assert max_sequence_length is not None
        return [TokenCount(tokenizer="tokenizer", limit=max_sequence_length, tokens=tokens)]

    def scaling(self, vae: Any) -> dict[str, Tensor]:
        import torch

        mean, var = vae.bn.running_mean.float(), vae.bn.running_var.float()
        return {"latents_bn_mean": mean, "latents_bn_std": torch.sqrt(var + vae.config.batch_norm_eps)}

    def latents(self, raw: Tensor, scaling: Mapping[str, Tensor]) -> Tensor:
        batch, channels, height, width = raw.shape
        # (B, C, h, w) → (B, C, 2, 2, h / 2, w / 2) → (B, 4C, h / 2, w / 2)
        patches = raw.float().view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
        latents = patches.reshape(batch, channels * 4, height // 2, width // 2)
        mean, std = (scaling[name].to(raw.device).view(1, -1, 1, 1) for name in ("latents_bn_mean", "latents_bn_std"))
        return (latents - mean) / std


FAMILY: Final = Flux2(name="flux.2", models=(_DEV,), pipelines=("Flux2Pipeline",))
