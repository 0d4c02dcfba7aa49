"""What a model's frozen encoders give for one picture and one text, and what that takes: sizes and work, in numbers.

Where the figures come from: the configs in the models' own repositories (`vae/config.json`,
`text_encoder*/config.json`) give channels and widths; the parameters were counted on the transformers classes made
from those configs, embeddings aside, and the autoencoders' work with `torch.utils.flop_counter` on diffusers' classes.
The default lengths of texts are those of the pipelines' `__call__` (diffusers 0.42), the longest what they check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["EncodingSpec", "TextOutput"]

_BF16: Final = 2
"""Bytes a number, as encodings are kept by default."""

_AUTOENCODER_FLOPS: Final = 4.65e6
"""A pixel, of the encoder with 128, 256, 512, 512 channels that Stable Diffusion 1 to 3 and both FLUX share: 4.88e12
for 1024×1024 (at 512×512 it is 4.26e6, since the attention in its middle grows with the square)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOutput:
    """One tensor that is kept for a text."""

    key: str
    """As diffusers names it: `prompt_embeds`."""
    tokens: int | None
    """None for a single vector."""
    width: int
    trimmed: bool = False
    """Whether only real tokens are kept, so that `tokens` is the most: the model masks the padding."""

    @property
    def numbers(self) -> int:
        return (self.tokens or 1) * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingSpec:
    """One model's encodings."""

    latent_channels: int
    latent_factor: int = 8
    """Pixels a side for each latent one."""
    texts: tuple[TextOutput, ...]
    text_flops: float
    """Of one text through all text encoders: twice the parameters for each token (Kaplan et al. 2020, section 2.1)."""
    sequence_length: int | None = None
    """`max_sequence_length` of the pipeline, unless told otherwise; None where it is not to be chosen."""
    longest_sequence: int | None = None
    """The most it takes."""
    posterior: bool = True
    """Whether the autoencoder gives a mean and a log variance; if not, its latents alone."""
    autoencoder_flops: float = _AUTOENCODER_FLOPS
    """Of its encoder, a pixel."""

    def picture_bytes(self, height: int, width: int) -> int:
        """Kept of a picture of so many pixels, as bfloat16: the posterior's mean and log variance, or latents alone."""
        area = (height // self.latent_factor) * (width // self.latent_factor)
        return (2 if self.posterior else 1) * self.latent_channels * area * _BF16

    @property
    def text_bytes(self) -> int:
        """Of one text of the full length, as bfloat16."""
        return sum(output.numbers for output in self.texts) * _BF16

    def picture_flops(self, height: int, width: int) -> float:
        """Of the autoencoder's encoder."""
        return self.autoencoder_flops * height * width


_CLIP_L: Final = 85_056_000
_CLIP_G: Final = 631_319_040
_T5_XXL: Final = 4_630_714_368
_QWEN_2_5_VL_7B: Final = 6_525_621_760
_QWEN_3_4B: Final = 3_633_511_936
_MISTRAL_SMALL: Final = 22_230_225_920
_GEMMA_2_2B: Final = 2_024_517_888


def flux_encodings(t5_tokens: int) -> EncodingSpec:
    """FLUX.1: all of T5's positions, since its transformer attends to the padding too, and CLIP-L's pooled vector."""
    return EncodingSpec(
        latent_channels=16,
        texts=(
            TextOutput(key="prompt_embeds", tokens=t5_tokens, width=4096),
            TextOutput(key="pooled_prompt_embeds", tokens=None, width=768),
        ),
        text_flops=2.0 * (_T5_XXL * t5_tokens + _CLIP_L * 77),
        sequence_length=t5_tokens,
        longest_sequence=t5_tokens,
    )


def sd3_encodings(t5_tokens: int) -> EncodingSpec:
    """SD3 and 3.5: both CLIPs side by side, padded to T5's width, and T5 behind them; both pooled vectors in one."""
    return EncodingSpec(
        latent_channels=16,
        texts=(
            TextOutput(key="prompt_embeds", tokens=77 + t5_tokens, width=4096),
            TextOutput(key="pooled_prompt_embeds", tokens=None, width=768 + 1280),
        ),
        text_flops=2.0 * (_T5_XXL * t5_tokens + (_CLIP_L + _CLIP_G) * 77),
        sequence_length=t5_tokens,
        longest_sequence=512,
    )


SDXL_ENCODINGS: Final = EncodingSpec(
    latent_channels=4,
    texts=(
        TextOutput(key="prompt_embeds", tokens=77, width=768 + 1280),
        TextOutput(key="pooled_prompt_embeds", tokens=None, width=1280),
    ),
    text_flops=2.0 * (_CLIP_L + _CLIP_G) * 77,
)

SD15_ENCODINGS: Final = EncodingSpec(
    latent_channels=4,
    texts=(TextOutput(key="prompt_embeds", tokens=77, width=768),),
    text_flops=2.0 * _CLIP_L * 77,
)

QWEN_IMAGE_ENCODINGS: Final = EncodingSpec(
    latent_channels=16,
    texts=(TextOutput(key="prompt_embeds", tokens=512, width=3584, trimmed=True),),
    text_flops=2.0 * _QWEN_2_5_VL_7B * (34 + 512),  # the system prompt's 34 tokens are encoded, and cut off after that
    sequence_length=512,
    longest_sequence=1024,
    autoencoder_flops=7.0e6,
)

Z_IMAGE_ENCODINGS: Final = EncodingSpec(
    latent_channels=16,
    texts=(TextOutput(key="prompt_embeds", tokens=512, width=2560, trimmed=True),),
    text_flops=2.0 * _QWEN_3_4B * 512,
    sequence_length=512,
    longest_sequence=512,
)

FLUX_2_ENCODINGS: Final = EncodingSpec(
    latent_channels=32,
    texts=(TextOutput(key="prompt_embeds", tokens=512, width=3 * 5120),),  # three of Mistral's layers side by side
    text_flops=2.0 * _MISTRAL_SMALL * 512,
    sequence_length=512,
    longest_sequence=512,
)

CHROMA_ENCODINGS: Final = EncodingSpec(
    latent_channels=16,
    texts=(TextOutput(key="prompt_embeds", tokens=512, width=4096, trimmed=True),),
    text_flops=2.0 * _T5_XXL * 512,
    sequence_length=512,
    longest_sequence=512,
)

PIXART_SIGMA_ENCODINGS: Final = EncodingSpec(
    latent_channels=4,
    texts=(TextOutput(key="prompt_embeds", tokens=300, width=4096, trimmed=True),),
    text_flops=2.0 * _T5_XXL * 300,
    sequence_length=300,
    longest_sequence=300,
)

SANA_ENCODINGS: Final = EncodingSpec(
    latent_channels=32,
    latent_factor=32,
    texts=(TextOutput(key="prompt_embeds", tokens=300, width=2304, trimmed=True),),
    # The pipeline's instruction, about 200 tokens, goes before each text; all but its edges is cut off after that.
    text_flops=2.0 * _GEMMA_2_2B * (200 + 300),
    sequence_length=300,
    longest_sequence=300,
    posterior=False,
    autoencoder_flops=4.9e6,
)
