"""What every model's transform shares: pixels on the way to [-1, 1], and a caption through each tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from calotype.errors import ConfigError
from calotype.models.tokenizer import Tokenizer

__all__ = ["PixelsTransform", "TokenField", "TokenTransform", "Truncation"]


class PixelsTransform:
    """The pixels alone, for work that needs no tokens, or where a model's tokenizers can't be had.

    Input: `{"image": uint8 tensor (3, H, W) or PIL image}`; other keys are not looked at.
    Output: `{"img": (3, H, W)}`, uint8 from `prepare`, float32 in [-1, 1] from `finish` and from a plain call.
    """

    def __call__(self, sample: Mapping[str, Any], /) -> dict[str, Any]:
        return self.finish(self.prepare(sample))

    def prepare(self, sample: Mapping[str, Any], /) -> dict[str, Any]:
        """`image` → `img`, uint8 (3, H, W)."""
        return {"img": _pixels(sample)}

    def finish(self, batch: Mapping[str, Any], /) -> dict[str, Any]:
        """`img` uint8 (..., 3, H, W) → float32 `(img / 127.5) - 1` on its own device; the other keys stay."""
        img = batch["img"]
        if img.dtype != torch.uint8:
            raise TypeError(f"img: uint8, as prepare gives it, was expected; found {img.dtype}: finished already?")
        return {**batch, "img": img.to(torch.float32).div_(127.5).sub_(1)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenField:
    """One tokenizer of a model's transform, and the key its ids go to."""

    option: str
    """The transform's option that names the tokenizer: `clip_tokenizer_path`."""

    key: str
    """Of the output: `clip_text_tokens`."""

    tokenizer: Tokenizer

    max_length: int
    """Tokens, the framing ones included: the length of the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """A caption that one tokenizer can't take whole."""

    option: str
    """The transform's option that names the tokenizer."""

    tokens: int
    """How many the caption takes, framing tokens included."""

    limit: int
    """How many the model takes."""

    cut: int
    """Where the caption is cut: `text[:cut]` is what the model sees."""

    lost: str
    """`text[cut:]`, which it does not."""


class TokenTransform(PixelsTransform):
    """Pixels and tokens; the base of each model's transform.

    Input: `{"image": uint8 tensor (3, H, W) or PIL image, "text": str}`; other keys are not looked at.
    Output: `img` as `PixelsTransform`, and for each field its key: int64 (max_length,).
    """

    def __init__(self, fields: tuple[TokenField, ...]) -> None:
        self.fields = fields

    def prepare(self, sample: Mapping[str, Any], /) -> dict[str, Any]:
        """Tokenises `text`; `img` stays uint8."""
        prepared = super().prepare(sample)
        text = _text(sample)
        for field in self.fields:
            prepared[field.key] = torch.tensor(field.tokenizer(text, field.max_length), dtype=torch.int64)
        return prepared

    def truncated(self, text: str) -> dict[str, Truncation]:
        """The tokenizers that can't take the whole text, by option; empty when nothing is cut."""
        found = {}
        for field in self.fields:
            cut = field.tokenizer.cut(text, field.max_length)
            if cut is not None:
                found[field.option] = Truncation(
                    option=field.option,
                    tokens=field.tokenizer.count(text),
                    limit=field.max_length,
                    cut=cut,
                    lost=text[cut:],
                )
        return found

    def __repr__(self) -> str:
        fields = ", ".join(f"{field.key}={field.max_length}" for field in self.fields)
        return f"{type(self).__name__}({fields})"


def _pixels(sample: Mapping[str, Any]) -> torch.Tensor:
    image = sample["image"]
    if not isinstance(image, torch.Tensor):
        # A copy: PIL owns the buffer, and torch wants one that it may write to.
        image = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ConfigError(
            f"image of {sample.get('id', 'a sample')!r}: a uint8 tensor (3, height, width) or a PIL image was "
            f"expected, found {image.dtype} {tuple(image.shape)}"
        )
    return image


def _text(sample: Mapping[str, Any]) -> str:
    text = sample.get("text")
    if not isinstance(text, str):
        raise ConfigError(
            f"text of {sample.get('id', 'a sample')!r}: a caption (str) was expected, found {type(text).__name__}"
        )
    return text
