"""`decode`: bytes → upright sRGB pixels. simplejpeg decodes plain JPEGs, Pillow everything else."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from calotype.images.colour import to_srgb
from calotype.images.formats import HEAD, NotAnImageError, sniff
from calotype.images.jpeg import (
    IncompleteJpegError,
    JpegHeader,
    OddJpegError,
    count_scans,
    decode_jpeg,
    scale_for,
    scan_jpeg,
)
from calotype.images.limits import bytes_to_decode, check_pixels, check_scans
from calotype.images.locks import DECODING
from calotype.images.orientation import upright, upright_size
from calotype.images.pillow import bits_of, count_frames, open_pillow, pillow_orientation, quiet_pillow

__all__ = ["Decoded", "Need", "decode"]

Need = Callable[[tuple[int, int]], tuple[int, int]]
"""Maps an image's upright (H, W) to the (H, W) that the whole image will be resampled to."""

_STRIP = 1 << 20
"""Pixels converted at a time, so that memory holds an image once as stored and once as RGB."""

_WHITE_IS_ZERO = 0
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A decoded image."""

    pixels: npt.NDArray[np.uint8]
    """uint8 (H, W, 3), C-contiguous and writable, sRGB, upright."""
    original_size: tuple[int, int]
    """(H, W), upright, before any scaled decode."""
    notes: tuple[str, ...] = ()
    """Conversions that were needed: `animated: first of 12 frames`, `alpha on (255, 255, 255)`, `cmyk`, `16-bit`, …"""


def decode(
    data: bytes,
    *,
    background: tuple[int, int, int],
    max_pixels: int,
    need: Need | None = None,
) -> Decoded:
    """Decode one file.

    Args:
        data: The whole file.
        background: sRGB colour under transparent pixels, 0 to 255 each.
        max_pixels: Largest H × W; checked before decoding.
        need: The size that the whole image will be resampled to; with it, a JPEG may be decoded at 1/2, 1/4 or 1/8 of
            its size. None decodes at full size.

    Raises:
        TooManyPixelsError: More than `max_pixels`.
        TooCostlyError: A JPEG has too many scans, a side is too long, or a GIF or TIFF has too many parts.
        MissingDependencyError: A HEIC without pillow-heif.
        Exception: Any error of the decoders on damaged bytes.
    """
    format = sniff(data[:HEAD])
    odd: tuple[str, ...] = ()
    if format == "JPEG":
        try:
            header = scan_jpeg(data)
        except IncompleteJpegError:
            raise ValueError("truncated: the JPEG ends inside its header") from None
        check_pixels(header.size, max_pixels)
        check_scans(count_scans(data, header), header.size)
        if header.plain:
            try:
                return _decode_plain_jpeg(data, header, need)
            except OddJpegError as warning:
                odd = (f"jpeg: {warning}",)
    pixels, orientation, notes = _decode_pillow(data, format, background=background, max_pixels=max_pixels)
    pixels = upright(pixels, orientation)
    return Decoded(pixels=pixels, original_size=(pixels.shape[0], pixels.shape[1]), notes=odd + notes)


def _decode_plain_jpeg(data: bytes, header: JpegHeader, need: Need | None) -> Decoded:
    size = upright_size(header.size, header.orientation)
    factor = scale_for(size, need(size)) if need else 1
    peak = bytes_to_decode("JPEG", header.size, progressive=header.frame == 0xC2)
    with DECODING.take(peak, kept=3 * size[0] * size[1] // factor**2):
        pixels = decode_jpeg(data, header, factor=factor)
        notes: tuple[str, ...] = ()
        if header.icc or pixels.ndim == 2:
            pixels, notes = _to_srgb_pixels(pixels, header.icc)
        return Decoded(pixels=upright(pixels, header.orientation), original_size=size, notes=notes)


def _to_srgb_pixels(stored: npt.NDArray[np.uint8], icc: bytes | None) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Convert uint8 (H, W) or (H, W, 3) to sRGB (H, W, 3), the latter in place; return it with notes."""
    pixels = stored if stored.ndim == 3 else np.empty((*stored.shape, 3), np.uint8)
    if icc is None:
        np.copyto(pixels, stored[..., None])
        return pixels, ()
    notes = set()
    for rows in _strips(stored.shape[0], stored.shape[1]):
        strip, note = to_srgb(Image.fromarray(stored[rows]), icc)
        notes.add(note)
        if note or stored.ndim == 2:
            pixels[rows] = np.asarray(strip)
    return pixels, tuple(note for note in notes if note)


def _strips(height: int, width: int) -> Iterator[slice]:
    """Return slices of rows with about `_STRIP` pixels each."""
    step = max(1, _STRIP // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _decode_pillow(
    data: bytes, format: str, *, background: tuple[int, int, int], max_pixels: int
) -> tuple[npt.NDArray[np.uint8], int, tuple[str, ...]]:
    """Return uint8 (H, W, 3) not yet upright, its orientation, and notes."""
    with quiet_pillow(), open_pillow(io.BytesIO(data), format, pixels=True) as image:
        size = (image.height, image.width)
        check_pixels(size, max_pixels)
        peak = bytes_to_decode(format, size, progressive=format == "JPEG")
        with DECODING.take(peak, kept=3 * size[0] * size[1]):
            notes = []
            frames = count_frames(image, format)
            if frames > 1:
                several = f"pages: first of {frames}" if format == "TIFF" else f"animated: first of {frames} frames"
                notes.append(several)
                image.seek(0)
            image.load()
            orientation = pillow_orientation(image)
            if bits_of(image, data) == 16:
                notes.append("16-bit")
            pixels = np.empty((image.height, image.width, 3), np.uint8)  # Pillow turns a TIFF in `load`
            for rows in _strips(image.height, image.width):
                whole = rows.stop - rows.start == image.height
                strip = image if whole else image.crop((0, rows.start, image.width, rows.stop))
                strip, found = _to_rgb(strip, image, background)
                pixels[rows] = np.asarray(strip)
                notes += [note for note in found if note not in notes]
    return pixels, orientation, tuple(notes)


def _to_rgb(part: Image.Image, image: ImageFile, background: tuple[int, int, int]) -> tuple[Image.Image, list[str]]:
    """Convert some rows of a loaded image to RGB in sRGB on the background; return them with notes."""
    notes = []
    plain = part
    # To 8 bits, without palettes and single transparent colours: L, LA, RGB, RGBA or CMYK.
    if part.mode.startswith("I;16"):
        plain = _eight_bits(part, image)
    elif part.mode in ("P", "PA", "La", "RGBa") or "transparency" in image.info:
        plain = _expand(part)
    elif part.mode in ("1", "RGBX", "YCbCr"):
        plain = part.convert("RGB")
    if plain.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        raise NotAnImageError(
            f"its pixels are of Pillow's mode {image.mode!r}, whose black and white points are undefined; "
            "save it as 8- or 16-bit RGB",
            "unsupported",
        )
    # Colours to sRGB, alpha apart.
    alpha = plain.getchannel("A") if plain.mode in ("LA", "RGBA") else None
    if alpha is not None:
        plain = plain.convert("L" if plain.mode == "LA" else "RGB")
    if plain.mode == "CMYK":
        notes.append("cmyk")
    icc = image.info.get("icc_profile")
    if icc:
        plain, note = to_srgb(plain, icc)
        if note:
            notes.append(note)
    else:
        plain = plain.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        # Composite gamma-encoded values, as browsers and image viewers do.
        canvas = Image.new("RGB", plain.size, background)
        canvas.paste(plain, mask=alpha)
        plain = canvas
        notes.append(f"alpha on {background}")
    return plain, notes


def _eight_bits(part: Image.Image, image: ImageFile) -> Image.Image:
    """Convert 16-bit grey to L, or LA with a transparent grey: 65535 becomes 255 (Pillow's `convert` clips)."""
    wide = np.asarray(part).astype(np.uint32)
    most = 65535
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        most = (1 << max(tags.get(_BITS_PER_SAMPLE, (16,)))) - 1  # 12-bit files have this mode too
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            wide = most - wide
    narrow = Image.fromarray(((wide * 255 + most // 2) // most).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        narrow.putalpha(Image.fromarray(np.where(wide == clear, 0, 255).astype(np.uint8)))
    return narrow


def _expand(image: Image.Image) -> Image.Image:
    """Convert palettes, a single transparent colour or premultiplied alpha to LA, RGB or RGBA."""
    if image.mode == "La":
        return image.convert("LA")
    if image.mode == "P" and "transparency" not in image.info:
        return image.convert("RGB")
    clear = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:
        image.info["transparency"] = tuple(level >> 8 for level in clear)  # Pillow reduced 16-bit pixels likewise
    return image.convert("RGBA")
