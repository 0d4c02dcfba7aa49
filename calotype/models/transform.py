"""Base classes of the models' transforms: pixels scaled to [-1, 1], and a caption tokenized by each tokenizer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.errors import ConfigError
from calotype.models.spec import ModelSpec, TokenizerSpec, check_max_seq_len

if TYPE_CHECKING:
    import torch

    from calotype.models.tokenizer import Tokenizer

__all__ = ["PixelsTransform", "TokenField", "TokenTransform", "Truncation", "paths_by_option"]


class PixelsTransform:
    """Pixels without tokens.

    Input: `{"image": uint8 tensor (3, H, W) or PIL image}`; other keys are ignored.
    Output: `{"img": (3, H, W)}`, uint8 from `prepare`, float32 in [-1, 1] from `finish` and from a plain call.
    """

    def __call__(self, sample: Mapping[str, Any], /) -> dict[str, Any]:
        return self.finish(self.prepare(sample))

    def prepare(self, sample: Mapping[str, Any], /) -> dict[str, Any]:
        """Convert `image` to `img`, uint8 (3, H, W).

        Raises:
            ConfigError: `image` has another type, dtype, shape or mode.
        """
        return {"img": _pixels(sample)}

    def finish(self, batch: Mapping[str, Any], /) -> dict[str, Any]:
        """Scale `img` (..., 3, H, W) from uint8 to float32 in [-1, 1], `(img / 127.5) - 1`, on its own device.

        Other keys are unchanged.

        Raises:
            ConfigError: `img` is not uint8: it may be finished already.
        """
        import torch

        img = batch["img"]
        if img.dtype != torch.uint8:
            raise ConfigError(f"img: uint8, as prepare() gives it, was expected, found {img.dtype}: finished already?")
        # Divide by a tensor: for a Python number CUDA multiplies by the rounded reciprocal, and the last bit of a value
        # would depend on the device.
        half = torch.full((), 127.5, dtype=torch.float32, device=img.device)
        return {**batch, "img": img.to(torch.float32).div_(half).sub_(1)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenField:
    """One tokenizer of a transform, with its length."""

    spec: TokenizerSpec
    tokenizer: Tokenizer
    max_length: int
    """Length of the output in tokens, special tokens included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """The truncation of a text by one tokenizer."""

    tokenizer: str
    """The transform's option for it (`clip_tokenizer_path`), or the pipeline's component (`tokenizer_2`)."""

    tokens: int
    """Tokens of the whole text, special tokens included."""

    limit: int
    """Tokens that it is truncated to."""

    cut: int | None = None
    """Index of the first truncated character: the model's input is `text[:cut]`. None if tokens were only counted."""

    lost: str | None = None
    """The truncated text, `text[cut:]`. None if tokens were only counted."""

    @property
    def option(self) -> str:
        """Deprecated name of `tokenizer`."""
        warnings.warn("Truncation.option is called `tokenizer`", DeprecationWarning, stacklevel=2)
        return self.tokenizer


class TokenTransform(PixelsTransform):
    """Pixels and tokens; the base of each model's transform.

    Input: `{"image": uint8 tensor (3, H, W) or PIL image, "text": str}`; other keys are ignored.
    Output: `img` as `PixelsTransform` returns it, and each tokenizer's key: int64 (max_length,), truncated and padded.

    Args:
        spec: The model whose tokenizers these are.
        paths: Path of each tokenizer, by option, as for `load_tokenizer`. None counts as missing.
        **lengths: Tokens of a caption, by the spec's `length_option`; the default is the spec's.

    Raises:
        MissingTokenizerError: There is no tokenizer at a path; the message says how to get it.
        ConfigError: The files are another tokenizer's, or the model does not take such a length.
    """

    def __init__(self, spec: ModelSpec, paths: Mapping[str, str | Path | None], **lengths: int) -> None:
        from calotype.models.tokenizer import load_tokenizer

        given = paths_by_option(spec, paths)
        lacking = [one.option for one in spec.tokenizers if one.option not in given]
        if lacking:
            raise ConfigError(f"{type(self).__name__}: {', '.join(lacking)} not given; expected a tokenizer's path")
        for option, length in lengths.items():
            check_max_seq_len(spec, option, length)
        self.spec = spec
        self.fields = tuple(
            TokenField(
                spec=one,
                tokenizer=load_tokenizer(given[one.option], kind=one.kind, pad_token=one.pad_token),
                max_length=lengths.get(one.length_option or "", one.max_length),
            )
            for one in spec.tokenizers
        )

    def prepare(self, sample: Mapping[str, Any], /) -> dict[str, Any]:
        """Tokenize `text`; `img` stays uint8.

        Raises:
            ConfigError: `image` or `text` is wrong; names the sample.
        """
        import torch

        prepared = super().prepare(sample)
        text = _text(sample)
        for field in self.fields:
            prepared[field.spec.key] = torch.tensor(field.tokenizer(text, field.max_length), dtype=torch.int64)
        return prepared

    @property
    def pad_id(self) -> int:
        """Padding id of the last tokenizer. torchtune's recipes pad batches with it."""
        return self.fields[-1].tokenizer.pad_id

    def truncated(self, text: str) -> dict[str, Truncation]:
        """Return the truncation of a text by each tokenizer, by option; empty where all of it fits."""
        found = {}
        for field in self.fields:
            cut = field.tokenizer.cut(text, field.max_length)
            if cut is not None:
                found[field.spec.option] = Truncation(
                    tokenizer=field.spec.option,
                    tokens=field.tokenizer.count(text),
                    limit=field.max_length,
                    cut=cut,
                    lost=text[cut:],
                )
        return found

    def __repr__(self) -> str:
        fields = ", ".join(f"{field.spec.key}={field.max_length}" for field in self.fields)
        return f"{type(self).__name__}({fields})"


def paths_by_option(spec: ModelSpec, paths: Mapping[str, str | Path | None]) -> dict[str, str | Path]:
    """Return paths of tokenizers by the current names of their options; warn about deprecated names.

    Raises:
        ConfigError: A path is given under both names.
    """
    present = {one.former_option: one.option for one in spec.tokenizers if one.former_option}
    found: dict[str, str | Path] = {}
    for option, path in paths.items():
        if path is None:
            continue
        if option in present:
            if paths.get(present[option]) is not None:
                raise ConfigError(f"{present[option]} and {option} are both given; expected {present[option]} alone")
            text = f"{option} of {spec.name} is called {present[option]}; the former name goes with calotype 0.2"
            warnings.warn(text, DeprecationWarning, stacklevel=4)
        found[present.get(option, option)] = path
    return found


def _pixels(sample: Mapping[str, Any]) -> torch.Tensor:
    """Return the sample's image as a uint8 tensor (3, H, W)."""
    import torch

    image = sample["image"]
    if not isinstance(image, torch.Tensor):
        image = _from_pil(image, sample)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ConfigError(
            f"image of {_name(sample)}: a uint8 tensor (3, height, width) or a PIL image was expected, "
            f"found {image.dtype} {tuple(image.shape)}"
        )
    return image


def _from_pil(image: Any, sample: Mapping[str, Any]) -> torch.Tensor:
    """Convert a PIL image of mode RGB or L to a uint8 tensor (3, H, W), with its EXIF orientation applied."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise ConfigError(
            f"image of {_name(sample)}: a uint8 tensor (3, height, width) or a PIL image was expected, "
            f"found {type(image).__name__}"
        )
    if image.mode not in ("RGB", "L"):
        # convert("RGB") would show pixels that alpha hides, clip 16-bit values and ignore a CMYK profile.
        raise ConfigError(
            f"image of {_name(sample)}: a PIL image of mode RGB or L was expected, found {image.mode}; "
            "calotype's own reader gives the right pixels of every mode"
        )
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1).contiguous()  # (H, W, 3) → (3, H, W)


def _text(sample: Mapping[str, Any]) -> str:
    """Return the sample's text; refuse one that is no valid Unicode."""
    text = sample.get("text")
    if not isinstance(text, str):
        raise ConfigError(f"text of {_name(sample)}: a caption (str) was expected, found {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"text of {_name(sample)}: half a character (a lone surrogate) at {error.start}, "
            f"{text[error.start : error.start + 1]!r}, which no tokenizer takes; fix the caption"
        ) from error
    return text


def _name(sample: Mapping[str, Any]) -> str:
    return repr(sample["id"]) if "id" in sample else "a sample"
