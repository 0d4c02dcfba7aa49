"""Records for the facts about models, and checks of image sizes and caption lengths against them.

Plain data: sizes are known without importing torch. The facts of each family are in a module beside this one.

Sources: `multiple` and the largest lengths of captions are what diffusers' pipelines check
(`check_inputs` of `pipeline_flux.py`, `pipeline_stable_diffusion_3.py`, `pipeline_stable_diffusion_xl.py`,
`pipeline_stable_diffusion.py`, `pipeline_qwenimage.py`, `pipeline_flux2.py`, `pipeline_chroma.py`, `pipeline_sana.py`,
and `__call__` of `pipeline_z_image.py`, 0.42; PixArt-Σ's is its VAE's 8 times its patch of 2); resolutions and
FLUX.1-schnell's 256 tokens are those of the model cards. The configs in the models' own repositories
(`vae/config.json`, `text_encoder*/config.json`) have channels and widths. Parameters were counted on transformers'
classes built from those configs, without embeddings; the autoencoders' FLOPs were measured by
`torch.utils.flop_counter` on diffusers' classes. Bytes of files are the parameters of those classes, embeddings
included, counted on the meta device, at the precision in which the models are published: bfloat16 but for SDXL's, SD
1.5's and PixArt-Σ's weights and Sana's autoencoder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from calotype.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = [
    "CLIP_G_PARAMETERS",
    "CLIP_L_PARAMETERS",
    "CLIP_TOKENS",
    "T5_XXL_PARAMETERS",
    "EncodingSpec",
    "ModelSpec",
    "TextOutput",
    "TokenizerSpec",
    "check_image_size",
    "check_max_seq_len",
]

CLIP_TOKENS: Final = 77
"""Sequence length of CLIP's text encoders."""

CLIP_L_PARAMETERS: Final = 85_056_000
CLIP_G_PARAMETERS: Final = 631_319_040
T5_XXL_PARAMETERS: Final = 4_630_714_368

_BF16: Final = 2
"""Bytes of an element in bfloat16, the default dtype of encodings."""

_AUTOENCODER_FLOPS: Final = 4.65e6
"""FLOPs per pixel of the encoder with 128, 256, 512, 512 channels that Stable Diffusion 1 to 3 and both FLUX share:
4.88e12 for 1024 × 1024. At 512 × 512 it is 4.26e6, since the cost of the middle block's attention is quadratic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSpec:
    """One tokenizer of a model. The transform's options and the sample's key derive from its name: docs/naming.md."""

    name: str
    """`clip` and `t5`; `clip_l` and `clip_g` where a model has both CLIPs."""

    subfolder: str
    """Its folder in the hub's repository and in a saved pipeline: `tokenizer_2`."""

    kind: str
    """Argument `kind` of `load_tokenizer`: `clip`, `t5`."""

    max_length: int = CLIP_TOKENS
    """Default length of a caption in tokens, special tokens included."""

    limit: int = CLIP_TOKENS
    """The largest length that the model takes."""

    adjustable: bool = False
    """Whether an option of the transform changes `max_length`."""

    pad_token: str | None = None
    """Padding token, where the tokenizer's files name none; None is the default of its kind."""

    former_option: str | None = None
    """Deprecated name of `option`, until 0.2."""

    @property
    def option(self) -> str:
        """The transform's option for its path: `t5_tokenizer_path`."""
        return f"{self.name}_tokenizer_path"

    @property
    def key(self) -> str:
        """Key of its ids in a sample and a batch: `t5_text_tokens`."""
        return f"{self.name}_text_tokens"

    @property
    def length_option(self) -> str | None:
        """The transform's option for `max_length`: `t5_max_seq_len`; None where it is fixed."""
        return f"{self.name}_max_seq_len" if self.adjustable else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOutput:
    """One tensor of a text's record and of a batch."""

    key: str
    """diffusers' name: `prompt_embeds`."""

    tokens: int | None
    """Length in tokens, the maximum where padding is masked; None for a single vector."""

    width: int
    """Number of channels."""

    mask: str | None = None
    """The batch's key for the mask of real tokens; records then hold real tokens only. None where the transformer
    attends to all positions, so records hold all."""

    bool_mask: bool = False
    """Whether the transformer takes a bool mask; else int64."""

    @property
    def mask_dtype(self) -> torch.dtype:
        """Dtype of the mask."""
        import torch

        return torch.bool if self.bool_mask else torch.int64

    @property
    def trimmed(self) -> bool:
        """Whether records hold real tokens only."""
        return self.mask is not None

    @property
    def numbers(self) -> int:
        """Number of elements at full length."""
        return (self.tokens or 1) * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingSpec:
    """Sizes and costs of one model's encodings."""

    latent_channels: int
    latent_factor: int = 8
    """Side of one latent pixel in pixels."""
    texts: tuple[TextOutput, ...]
    text_flops: float
    """FLOPs of all text encoders for one text: twice the parameters for each token (Kaplan et al. 2020, section
    2.1)."""
    sequence_length: int | None = None
    """Default `max_sequence_length` of the pipeline, for a model whose spec names no adjustable tokenizer
    (`ModelSpec.sequence_length`); None where it is fixed."""
    longest_sequence: int | None = None
    """The largest `max_sequence_length`."""
    posterior: bool = True
    """Whether the autoencoder returns a mean and a log variance; else latents alone."""
    autoencoder_flops: float = _AUTOENCODER_FLOPS
    """FLOPs of the autoencoder's encoder, per pixel."""

    def picture_bytes(self, height: int, width: int) -> int:
        """Return the bytes of an image's record in bfloat16: mean and log variance, or latents alone."""
        area = (height // self.latent_factor) * (width // self.latent_factor)
        return (2 if self.posterior else 1) * self.latent_channels * area * _BF16

    @property
    def text_bytes(self) -> int:
        """Bytes of the record of a text of full length, in bfloat16."""
        return sum(output.numbers for output in self.texts) * _BF16

    def picture_flops(self, height: int, width: int) -> float:
        """Return the FLOPs of the autoencoder's encoder for an image."""
        return self.autoencoder_flops * height * width


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The facts about one model."""

    name: str
    hub: tuple[str, ...]
    """Its repositories on the hub; the first is the one that is downloaded."""

    family: str
    """Name of its `ModelFamily`: `flux.1`."""

    resolution: int
    """Side in pixels of its training images; other shapes of about the same area fit too."""

    multiple: int
    """Both sides of an image are multiples of it: the VAE's factor times the patch size."""

    tokenizers: tuple[TokenizerSpec, ...] = ()
    """In the pipeline's order. If empty, samples have pixels only, and the frozen text encoders tokenize."""

    encodings: EncodingSpec
    """The output of its frozen encoders."""

    frozen_bytes: int | None = None
    """Bytes of its text encoders and its autoencoder in its repository; None if they were not counted."""

    network_bytes: int | None = None
    """Bytes of its transformer or U-Net there."""

    guidance_embeds: bool = False
    """Whether its network takes a guidance scale as input."""

    architecture: str | None = None
    """Its name in the model metadata standard (`modelspec.architecture`)."""

    @property
    def sequence_length(self) -> int | None:
        """Default `max_sequence_length` of the pipeline, in tokens; None where it is fixed."""
        tokenizer = self._adjustable
        return self.encodings.sequence_length if tokenizer is None else tokenizer.max_length

    @property
    def longest_sequence(self) -> int | None:
        """The largest `max_sequence_length`; None where it is fixed."""
        tokenizer = self._adjustable
        return self.encodings.longest_sequence if tokenizer is None else tokenizer.limit

    @property
    def _adjustable(self) -> TokenizerSpec | None:
        return next((one for one in self.tokenizers if one.adjustable), None)


def check_image_size(spec: ModelSpec, size: tuple[int, int], *, where: str = "size") -> None:
    """Refuse an image size that does not fit the model.

    Args:
        spec: The model.
        size: (height, width) in pixels.
        where: Name of the option in errors.

    Raises:
        ConfigError: A side is not a positive multiple of `spec.multiple`; names the nearest size that fits.
    """
    height, width = size
    if any(side <= 0 or side % spec.multiple for side in size):
        fit = tuple(max(1, round(side / spec.multiple)) * spec.multiple for side in size)
        raise ConfigError(
            f"{where}: {height}x{width} (height x width) does not fit {spec.name}, whose images have sides that are "
            f"multiples of {spec.multiple}; the nearest is {fit[0]}x{fit[1]}"
        )


def check_max_seq_len(spec: ModelSpec, option: str, length: int) -> None:
    """Refuse a caption length that does not fit the model.

    Args:
        spec: The model.
        option: Option of the transform: `t5_max_seq_len`.
        length: Its value, in tokens.

    Raises:
        ConfigError: The model has no such option, or takes fewer tokens; names both.
    """
    tokenizer = next((one for one in spec.tokenizers if one.length_option == option), None)
    if tokenizer is None:
        options = _listed(one.length_option for one in spec.tokenizers if one.length_option)
        raise ConfigError(f"{option}: {spec.name} has no such option; its lengths that can be set: {options}")
    if isinstance(length, bool) or not isinstance(length, int):
        raise ConfigError(f"{option}: a whole number of tokens was expected, found {length!r}")
    if not 1 <= length <= tokenizer.limit:
        raise ConfigError(
            f"{option}: {length} does not fit {spec.name}, which takes 1 to {tokenizer.limit} tokens; "
            f"leave it out for {tokenizer.max_length}"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
