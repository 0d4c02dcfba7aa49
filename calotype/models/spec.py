"""The table of facts: what each model was trained at, what it takes, and which tokenizers it reads captions with.

One row a model. Plain data without torch, so that sizes can be settled before anything heavy is imported.

Where the facts come from: `multiple` and the largest lengths of captions are what diffusers' pipelines check
(`check_inputs` of `pipeline_flux.py`, `pipeline_stable_diffusion_3.py`, `pipeline_stable_diffusion_xl.py`,
`pipeline_stable_diffusion.py`, `pipeline_qwenimage.py`, `pipeline_flux2.py`, `pipeline_chroma.py`, `pipeline_sana.py`,
and `__call__` of `pipeline_z_image.py`, 0.42; PixArt-Σ's is its VAE's 8 times its patch of 2); resolutions and
FLUX.1-schnell's 256 tokens are those of the model cards.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from calotype.errors import ConfigError
from calotype.models.encoding_spec import (
    CHROMA_ENCODINGS,
    FLUX_2_ENCODINGS,
    PIXART_SIGMA_ENCODINGS,
    QWEN_IMAGE_ENCODINGS,
    SANA_ENCODINGS,
    SD15_ENCODINGS,
    SDXL_ENCODINGS,
    Z_IMAGE_ENCODINGS,
    EncodingSpec,
    flux_encodings,
    sd3_encodings,
)
from calotype.models.model_path import refuse_weights_file

__all__ = ["ModelSpec", "TokenizerSpec", "check_image_size", "check_max_seq_len", "get_spec", "list_specs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSpec:
    """One tokenizer of a model."""

    option: str
    """The transform's option that names it: `clip_tokenizer_path`."""

    subfolder: str
    """Where it lies in the hub's repository and in a saved pipeline: `tokenizer_2`."""

    kind: str
    """What `load_tokenizer` calls it: `clip`, `t5`."""

    key: str
    """Of the ids in a sample and a batch: `t5_text_tokens`."""

    max_length: int
    """Tokens of a caption unless told otherwise, the framing ones included."""

    limit: int
    """The most tokens that the model takes."""

    length_option: str | None = None
    """The transform's option that changes `max_length`; None when it is fixed."""

    pad_token: str | None = None
    """What pads, where the tokenizer's own files don't say; None is the kind's usual one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The facts about one model that its data must fit."""

    name: str
    hub: tuple[str, ...]
    """The hub's repositories it is known by, the one to fetch from first."""

    family: str
    """Models of one family share a transform: `flux.1`."""

    resolution: int
    """Pixels a side at which it was trained; other shapes of about the same area suit it too."""

    multiple: int
    """What both sides of a picture must be divisible by: the VAE's factor times the patch."""

    tokenizers: tuple[TokenizerSpec, ...]

    transform: str
    """Dotted path of the family's transform."""

    encodings: EncodingSpec
    """What its frozen encoders give."""

    frozen: str
    """Dotted path of the family that runs them (`calotype.encodings.family.Family`)."""


_CLIP_L = TokenizerSpec(
    option="tokenizer_path", subfolder="tokenizer", kind="clip", key="clip_l_text_tokens", max_length=77, limit=77
)
_CLIP_G = TokenizerSpec(
    option="tokenizer_2_path",
    subfolder="tokenizer_2",
    kind="clip",
    key="clip_g_text_tokens",
    max_length=77,
    limit=77,
    pad_token="!",
)


def _flux(name: str, hub: str, *, t5_max_seq_len: int) -> ModelSpec:
    return ModelSpec(
        name=name,
        hub=(hub,),
        family="flux.1",
        resolution=1024,
        multiple=16,
        tokenizers=(
            TokenizerSpec(
                option="clip_tokenizer_path",
                subfolder="tokenizer",
                kind="clip",
                key="clip_text_tokens",
                max_length=77,
                limit=77,
            ),
            TokenizerSpec(
                option="t5_tokenizer_path",
                subfolder="tokenizer_2",
                kind="t5",
                key="t5_text_tokens",
                max_length=t5_max_seq_len,
                limit=t5_max_seq_len,
                length_option="t5_max_seq_len",
            ),
        ),
        transform="calotype.models.flux.FluxTransform",
        encodings=flux_encodings(t5_max_seq_len),
        frozen="calotype.encodings.families.flux.Flux",
    )


def _sd3(name: str, hub: str) -> ModelSpec:
    return ModelSpec(
        name=name,
        hub=(hub,),
        family="sd3",
        resolution=1024,
        multiple=16,
        tokenizers=(
            _CLIP_L,
            _CLIP_G,
            TokenizerSpec(
                option="tokenizer_3_path",
                subfolder="tokenizer_3",
                kind="t5",
                key="t5_text_tokens",
                max_length=256,
                limit=512,
                length_option="t5_max_seq_len",
            ),
        ),
        transform="calotype.models.sd3.SD3Transform",
        encodings=sd3_encodings(256),
        frozen="calotype.encodings.families.sd3.SD3",
    )


def _pixels_only(
    name: str,
    hub: str,
    *,
    family: str,
    encodings: EncodingSpec,
    frozen: str,
    resolution: int = 1024,
    multiple: int = 16,
) -> ModelSpec:
    """A model whose tokenizer calotype has no transform for: its texts are the business of its frozen encoders."""
    return ModelSpec(
        name=name,
        hub=(hub,),
        family=family,
        resolution=resolution,
        multiple=multiple,
        tokenizers=(),
        transform="calotype.models.transform.PixelsTransform",
        encodings=encodings,
        frozen=frozen,
    )


_SPECS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        _flux("flux.1-dev", "black-forest-labs/FLUX.1-dev", t5_max_seq_len=512),
        _flux("flux.1-schnell", "black-forest-labs/FLUX.1-schnell", t5_max_seq_len=256),
        _sd3("sd3-medium", "stabilityai/stable-diffusion-3-medium-diffusers"),
        _sd3("sd3.5-medium", "stabilityai/stable-diffusion-3.5-medium"),
        _sd3("sd3.5-large", "stabilityai/stable-diffusion-3.5-large"),
        ModelSpec(
            name="sdxl",
            hub=("stabilityai/stable-diffusion-xl-base-1.0",),
            family="sdxl",
            resolution=1024,
            multiple=8,
            tokenizers=(_CLIP_L, _CLIP_G),
            transform="calotype.models.sdxl.SDXLTransform",
            encodings=SDXL_ENCODINGS,
            frozen="calotype.encodings.families.sdxl.SDXL",
        ),
        ModelSpec(
            name="sd-1.5",
            hub=("stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
            family="sd-1",
            resolution=512,
            multiple=8,
            tokenizers=(
                TokenizerSpec(
                    option="tokenizer_path",
                    subfolder="tokenizer",
                    kind="clip",
                    key="clip_text_tokens",
                    max_length=77,
                    limit=77,
                ),
            ),
            transform="calotype.models.sd15.SD15Transform",
            encodings=SD15_ENCODINGS,
            frozen="calotype.encodings.families.sd15.SD15",
        ),
        _pixels_only(
            "qwen-image",
            "Qwen/Qwen-Image",
            family="qwen-image",
            resolution=1328,
            encodings=QWEN_IMAGE_ENCODINGS,
            frozen="calotype.encodings.families.qwen_image.QwenImage",
        ),
        _pixels_only(
            "z-image",
            "Tongyi-MAI/Z-Image",
            family="z-image",
            encodings=Z_IMAGE_ENCODINGS,
            frozen="calotype.encodings.families.z_image.ZImage",
        ),
        _pixels_only(
            "z-image-turbo",
            "Tongyi-MAI/Z-Image-Turbo",
            family="z-image",
            encodings=Z_IMAGE_ENCODINGS,
            frozen="calotype.encodings.families.z_image.ZImage",
        ),
        _pixels_only(
            "flux.2-dev",
            "black-forest-labs/FLUX.2-dev",
            family="flux.2",
            encodings=FLUX_2_ENCODINGS,
            frozen="calotype.encodings.families.flux2.Flux2",
        ),
        _pixels_only(
            "chroma",
            "lodestones/Chroma1-HD",
            family="chroma",
            encodings=CHROMA_ENCODINGS,
            frozen="calotype.encodings.families.chroma.Chroma",
        ),
        _pixels_only(
            "pixart-sigma",
            "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
            family="pixart-sigma",
            encodings=PIXART_SIGMA_ENCODINGS,
            frozen="calotype.encodings.families.pixart.PixArtSigma",
        ),
        _pixels_only(
            "sana",
            "Efficient-Large-Model/Sana_1600M_1024px_diffusers",
            family="sana",
            multiple=32,
            encodings=SANA_ENCODINGS,
            frozen="calotype.encodings.families.sana.Sana",
        ),
    )
}


def list_specs() -> list[ModelSpec]:
    """All models of the table, by name."""
    return sorted(_SPECS.values(), key=lambda spec: spec.name)


def get_spec(name: str) -> ModelSpec:
    """The facts about a model.

    Args:
        name: Of the table (`flux.1-dev`) or of the hub (`black-forest-labs/FLUX.1-dev`); letter case does not matter.

    Raises:
        ConfigError: No such model; names the nearest.
    """
    known = {spec.name.lower(): spec for spec in _SPECS.values()}
    known |= {hub.lower(): spec for spec in _SPECS.values() for hub in spec.hub}
    spec = known.get(str(name).lower())
    if spec is None:
        refuse_weights_file(name)
        near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.0)
        raise ConfigError(
            f"model: no model {name!r}; did you mean {known[near[0]].name!r}? "
            f"Known: {', '.join(spec.name for spec in list_specs())}, or their names on the hub"
        )
    return spec


def check_image_size(spec: ModelSpec, size: tuple[int, int], *, where: str = "size") -> None:
    """Refuses a picture's size that the model can't take.

    Args:
        spec: The model.
        size: (height, width) in pixels.
        where: The option that gives it, as the error should call it.

    Raises:
        ConfigError: A side is not a positive multiple of `spec.multiple`; names both and the nearest that is.
    """
    height, width = size
    if any(side <= 0 or side % spec.multiple for side in size):
        fit = tuple(max(1, round(side / spec.multiple)) * spec.multiple for side in size)
        raise ConfigError(
            f"{where}: {height}x{width} (height x width) does not fit {spec.name}, whose pictures have sides that are "
            f"multiples of {spec.multiple}; the nearest is {fit[0]}x{fit[1]}"
        )


def check_max_seq_len(spec: ModelSpec, option: str, length: int) -> None:
    """Refuses a length of captions that the model can't take.

    Args:
        spec: The model.
        option: Of the transform: `t5_max_seq_len`.
        length: In tokens.

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
