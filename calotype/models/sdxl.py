"""Stable Diffusion XL's transform: CLIP-L, CLIP-G, and the sizes that the U-Net is conditioned on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from calotype.errors import ConfigError
from calotype.models.spec import get_spec
from calotype.models.transform import TokenTransform
from calotype.types import Geometry

__all__ = ["SDXLTransform", "size_conditioning"]


class SDXLTransform(TokenTransform):
    """Pixels, tokens and size conditioning for SDXL, as diffusers' `StableDiffusionXLPipeline` takes them.

    Output: `img`; `clip_l_text_tokens` and `clip_g_text_tokens` int64 (77,); `original_size`, `crop_top_left` and
    `target_size` int64 (2,), (height, width) or (top, left) in pixels: side by side in this order they are the
    pipeline's `add_time_ids`. The first two come from the sample's `geometry`; without one the picture counts as
    uncropped and in its original size, and where a callable made the picture's size, as uncropped.

    Args:
        tokenizer_path: CLIP-L's tokenizer, any form that `load_tokenizer` takes.
        tokenizer_2_path: CLIP-G's, which pads with `!` (id 0).

    Raises:
        MissingTokenizerError: A path leads nowhere; says how to get the tokenizer.
        ConfigError: Something else than this tokenizer is there.
    """

    def __init__(self, tokenizer_path: str | Path, tokenizer_2_path: str | Path) -> None:
        super().__init__(get_spec("sdxl"), {"tokenizer_path": tokenizer_path, "tokenizer_2_path": tokenizer_2_path})

    def prepare(self, sample: Mapping[str, Any], /) -> dict[str, Any]:
        """Tokenises `text` and adds the sizes; `img` stays uint8.

        Raises:
            ConfigError: `image`, `text` or `geometry` is not what it should be; names the sample.
        """
        prepared = super().prepare(sample)
        geometry = sample.get("geometry")
        if geometry is not None and not isinstance(geometry, Geometry):
            raise ConfigError(
                f"geometry of {sample.get('id', 'a sample')!r}: a calotype.types.Geometry was expected, "
                f"found {type(geometry).__name__}"
            )
        return prepared | size_conditioning(geometry, tuple(prepared["img"].shape[-2:]))


def size_conditioning(geometry: Geometry | None, target_size: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """SDXL's micro-conditioning of one picture.

    Args:
        geometry: How its pixels were made; None counts as uncropped and in its original size.
        target_size: (height, width) that it has. Another than the geometry's was made by a callable, of whose crop
            nothing is known.

    Returns:
        `original_size`, `crop_top_left` and `target_size`, int64 (2,): side by side, the pipeline's `add_time_ids`.
    """
    original_size: tuple[int, ...] = target_size if geometry is None else geometry.original_size
    crop_top_left = (0, 0)
    if geometry is not None and tuple(geometry.target_size) == tuple(target_size):
        crop_top_left = geometry.crop_top_left
    sizes = {"original_size": original_size, "crop_top_left": crop_top_left, "target_size": target_size}
    return {key: torch.tensor(value, dtype=torch.int64) for key, value in sizes.items()}
