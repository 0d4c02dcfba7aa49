"""From the pixels of a decoded image to the tensor of a sample: crop, resize, rotate."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

from calotype.transforms.geometry import around_rotation
from calotype.types import Geometry

__all__ = ["INTERPOLATIONS", "crop_resize", "resampler", "to_tensor"]

INTERPOLATIONS = ("lanczos", "bicubic", "bilinear")
"""`lanczos` is Pillow's; a torch that has no uint8 Lanczos takes `bicubic` for it."""


def to_tensor(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 (H, W, 3) → contiguous uint8 tensor (3, H, W)."""
    return _tensor(pixels).permute(2, 0, 1).contiguous()


def crop_resize(pixels: npt.NDArray[np.uint8], geometry: Geometry, interpolation: str) -> torch.Tensor:
    """The part of the image that `geometry` keeps, at its target size; neither flipped nor recoloured.

    Only that part is resampled, from source pixels: what is thrown away costs nothing. Its borders are those of the
    crop, as in `PIL.Image.crop(…).resize(…)`.

    Args:
        pixels: uint8 (H', W', 3): the original, or the original decoded at a smaller scale.
        geometry: In pixels of the original.
        interpolation: One of `INTERPOLATIONS`, always antialiased.

    Returns:
        uint8 (3, h, w), contiguous.
    """
    rows, columns = (
        _scaled(geometry.box[a], geometry.box[a + 2], geometry.original_size[a], pixels.shape[a]) for a in (0, 1)
    )
    if geometry.rotate != 0.0:
        return _crop_turned(pixels, rows, columns, geometry, interpolation)
    return _resize(pixels[slice(*rows), slice(*columns)], geometry.target_size, interpolation)


def _scaled(start: int, length: int, original: int, decoded: int) -> tuple[int, int]:
    """[start, end) of the part in the decoded image, at least one pixel long."""
    if decoded == original:
        return start, start + length
    first = min(decoded - 1, round(start * decoded / original))
    return first, max(first + 1, min(decoded, round((start + length) * decoded / original)))


def _resize(part: npt.NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> torch.Tensor:
    if part.shape[:2] == size:
        return to_tensor(part)
    # (1, 3, H, W) in channels-last memory: how decoders give it, and what torch's uint8 kernel is quickest with.
    source = _tensor(part).permute(2, 0, 1)[None]
    resized = F.interpolate(source, size=size, mode=resampler(interpolation), antialias=True)
    return resized[0].contiguous()


def _crop_turned(
    pixels: npt.NDArray[np.uint8],
    rows: tuple[int, int],
    columns: tuple[int, int],
    geometry: Geometry,
    interpolation: str,
) -> torch.Tensor:
    """The part turned around its middle: its surroundings at the scale of the sample, read along a turned grid."""
    height, width = geometry.target_size
    wider = around_rotation(geometry.target_size, geometry.rotate)
    spans, sizes, middles, pitches = [], [], [], []
    for a, (start, end) in enumerate((rows, columns)):
        middle, half = (start + end) / 2, (end - start) * wider[a] / 2
        first, last = max(0, math.floor(middle - half)), min(pixels.shape[a], math.ceil(middle + half))
        pitch = (end - start) / geometry.target_size[a]
        spans.append(slice(first, last))
        sizes.append(max(1, round((last - first) / pitch)))
        # From here on the surroundings reach from -1 to 1: their middle, and half a sample's pixel, in that measure.
        middles.append(2 * (middle - first) / (last - first) - 1)
        pitches.append(pitch / (last - first))
    surroundings = _resize(pixels[spans[0], spans[1]], (sizes[0], sizes[1]), interpolation)

    cos, sin = math.cos(math.radians(geometry.rotate)), math.sin(math.radians(geometry.rotate))
    # Rows: x, y in the surroundings; columns: x, y in the sample (it too from -1 to 1), and 1.
    theta = torch.tensor(
        [
            [cos * width * pitches[1], -sin * height * pitches[1], middles[1]],
            [sin * width * pitches[0], cos * height * pitches[0], middles[0]],
        ]
    )
    grid = F.affine_grid(theta[None], [1, 3, height, width], align_corners=False)
    mode = "bilinear" if interpolation == "bilinear" else "bicubic"
    turned = F.grid_sample(surroundings[None].float(), grid, mode=mode, padding_mode="border", align_corners=False)
    return turned[0].round_().clamp_(0, 255).to(torch.uint8).contiguous()


def _tensor(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 (H, W, 3) tensor over the same memory where that is whole and ours to write to, else over a copy."""
    pixels = np.ascontiguousarray(pixels)
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())


def resampler(interpolation: str) -> str:
    """What really resamples where an option says so: it differs from one torch to another, and so do the pixels."""
    return "bicubic" if interpolation == "lanczos" and not _torch_has_lanczos() else interpolation


@cache
def _torch_has_lanczos() -> bool:
    try:
        F.interpolate(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), size=(4, 4), mode="lanczos", antialias=True)
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    return True
