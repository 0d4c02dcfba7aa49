"""Resample decoded pixels to the tensor of a sample: crop, resize, rotate."""

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
"""`lanczos` equals Pillow's; a version of torch without uint8 Lanczos falls back to `bicubic`."""


def to_tensor(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Convert uint8 (H, W, 3) pixels to a contiguous uint8 tensor (3, H, W)."""
    return _tensor(pixels).permute(2, 0, 1).contiguous()


def crop_resize(pixels: npt.NDArray[np.uint8], geometry: Geometry, interpolation: str) -> torch.Tensor:
    """Crop an image and resize the crop to `geometry.target_size`, without flip and colours.

    Equal to `PIL.Image.crop(…).resize(…)`: the crop is taken first, so pixels outside it cost nothing and do not
    contribute to its borders.

    Args:
        pixels: uint8 (H', W', 3): the upright original, or the same decoded at a smaller scale.
        geometry: The crop in pixels of the original.
        interpolation: One of `INTERPOLATIONS`, antialiased.

    Returns:
        uint8 (3, h, w), contiguous, (h, w) = `geometry.target_size`.
    """
    rows, columns = (
        _scaled(geometry.box[a], geometry.box[a + 2], geometry.original_size[a], pixels.shape[a]) for a in (0, 1)
    )
    if geometry.rotate != 0.0:
        return _crop_rotated(pixels, rows, columns, geometry, interpolation)
    return _resize(pixels[slice(*rows), slice(*columns)], geometry.target_size, interpolation)


def _scaled(start: int, length: int, original: int, decoded: int) -> tuple[int, int]:
    """Return [start, end) of the crop in the decoded image, at least one pixel long."""
    if decoded == original:
        return start, start + length
    first = min(decoded - 1, round(start * decoded / original))
    return first, max(first + 1, min(decoded, round((start + length) * decoded / original)))


def _resize(part: npt.NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> torch.Tensor:
    if part.shape[:2] == size:
        return to_tensor(part)
    # Channels-last memory is what decoders return and what torch's uint8 kernel is fastest with.
    source = _tensor(part).permute(2, 0, 1)[None]  # (H, W, 3) → (1, 3, H, W)
    resized = F.interpolate(source, size=size, mode=resampler(interpolation), antialias=True)  # (1, 3, h, w)
    return resized[0].contiguous()


def _crop_rotated(
    pixels: npt.NDArray[np.uint8],
    rows: tuple[int, int],
    columns: tuple[int, int],
    geometry: Geometry,
    interpolation: str,
) -> torch.Tensor:
    """Rotate a crop about its centre: resize its surroundings to the sample's scale, then sample a rotated grid."""
    height, width = geometry.target_size
    # The surroundings on each axis: a slice of `pixels`, its size when resized, and the crop's centre and pixel pitch.
    wider = around_rotation(geometry.target_size, geometry.rotate)
    spans, sizes, middles, pitches = [], [], [], []
    for a, (start, end) in enumerate((rows, columns)):
        middle, half = (start + end) / 2, (end - start) * wider[a] / 2
        first, last = max(0, math.floor(middle - half)), min(pixels.shape[a], math.ceil(middle + half))
        pitch = (end - start) / geometry.target_size[a]
        spans.append(slice(first, last))
        sizes.append(max(1, round((last - first) / pitch)))
        # Normalised coordinates of `affine_grid`: the surroundings span [-1, 1].
        middles.append(2 * (middle - first) / (last - first) - 1)
        pitches.append(pitch / (last - first))
    surroundings = _resize(pixels[spans[0], spans[1]], (sizes[0], sizes[1]), interpolation)

    cos, sin = math.cos(math.radians(geometry.rotate)), math.sin(math.radians(geometry.rotate))
    # (2, 3): maps (x, y, 1) of the sample in [-1, 1] to (x, y) of the surroundings.
    theta = torch.tensor(
        [
            [cos * width * pitches[1], -sin * height * pitches[1], middles[1]],
            [sin * width * pitches[0], cos * height * pitches[0], middles[0]],
        ],
        dtype=torch.float32,
        device="cpu",
    )
    grid = F.affine_grid(theta[None], [1, 3, height, width], align_corners=False)  # (1, h, w, 2)
    mode = "bilinear" if interpolation == "bilinear" else "bicubic"
    rotated = F.grid_sample(surroundings[None].float(), grid, mode=mode, padding_mode="border", align_corners=False)
    return rotated[0].round_().clamp_(0, 255).to(torch.uint8).contiguous()


def _tensor(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Return a uint8 (H, W, 3) tensor that shares contiguous, writable memory; other arrays are copied."""
    pixels = np.ascontiguousarray(pixels)
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())


def resampler(interpolation: str) -> str:
    """Return the mode that this version of torch uses for an interpolation; part of cache keys, since pixels differ."""
    return "bicubic" if interpolation == "lanczos" and not _torch_has_lanczos() else interpolation


@cache
def _torch_has_lanczos() -> bool:
    try:
        F.interpolate(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), size=(4, 4), mode="lanczos", antialias=True)
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    return True
