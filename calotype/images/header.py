"""`read_header`: facts of an image without decoding pixels; `look` also checks for truncation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

import xxhash

from calotype.images.colour import colour_space, profile_name
from calotype.images.formats import HEAD, sniff
from calotype.images.jpeg import IncompleteJpegError, JpegHeader, scan_jpeg
from calotype.images.limits import TooCostlyError, TooManyPixelsError, check_pixels
from calotype.images.orientation import upright_size
from calotype.images.pillow import bits_of, count_frames, open_pillow, pillow_orientation, quiet_pillow
from calotype.images.truncation import TAIL, missing_end

__all__ = ["Header", "Look", "look", "read_header"]

_FIRST: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Facts from an image's header."""

    format: str
    """`JPEG`, `PNG`, `WEBP`, `AVIF`, `GIF`, `BMP`, `TIFF` or `HEIF`: by content, not by file name."""
    size: tuple[int, int]
    """(H, W) in pixels, upright."""
    mode: str
    """Pillow's mode of the stored pixels: `RGB`, `L`, `CMYK`, `P`, `RGBA`, `I;16`, …"""
    bits: int
    """Bits per channel as stored: 8, or 1, 2, 4, 10, 12, 16, 32."""
    orientation: int
    """EXIF orientation, 1 to 8; already applied to `size`."""
    icc: str | None
    """Description of the embedded ICC profile, None without one."""
    colour_space: str | None
    """Description of the profile if pixels are converted from it; None for sRGB."""
    frames: int
    """Frames or pages; above 1 for animations and documents."""
    has_alpha: bool
    """Whether pixels can be transparent."""
    bytes: int
    """Length of the encoded file."""


class Look(NamedTuple):
    """A header, and a quick check of the rest of the file."""

    header: Header
    cut: str | None
    """Why the file is truncated, as `missing_end` returns it."""
    sketch: bytes
    """xxh3-64 of the first and last KiBs: different for different files; equal ones need a full comparison."""


def read_header(file: BinaryIO, length: int, *, max_pixels: int) -> Header:
    """Read the header, and as little of `file` as the format allows.

    Args:
        file: Seekable, at its start.
        length: Of the file in bytes.
        max_pixels: Largest H × W.

    Raises:
        TooManyPixelsError: More than `max_pixels`.
        TooCostlyError: A side is too long, or a GIF or TIFF has too many parts.
        MissingDependencyError: A HEIC without pillow-heif.
        Exception: Any error of the parsers on damaged bytes.
    """
    head = file.read(_FIRST)
    format = sniff(head[:HEAD])
    return _read(file, length, head, format, max_pixels)[0]


def look(file: BinaryIO, length: int, *, max_pixels: int) -> Look:
    """Read the header and the end of the file. Arguments as for `read_header`.

    Raises:
        ValueError: The file is damaged and truncated: `truncated: …` with the reason.
        Exception: As `read_header`.
    """
    head = file.read(_FIRST)
    format = sniff(head[:HEAD])
    file.seek(max(0, length - TAIL), os.SEEK_SET)
    tail = file.read(TAIL)
    file.seek(len(head))
    try:
        header, scan = _read(file, length, head, format, max_pixels)
    except (TooCostlyError, TooManyPixelsError, ImportError):
        raise
    except Exception as error:
        reason = None if format == "JPEG" else missing_end(file, length, format, head=head, tail=tail)
        if reason is None:
            raise
        raise ValueError(f"truncated: {reason}") from error
    cut = missing_end(file, length, format, head=head, tail=tail, scan=scan)
    return Look(header, cut, xxhash.xxh3_64_digest(head + tail))


def _read(file: BinaryIO, length: int, head: bytes, format: str, max_pixels: int) -> tuple[Header, int]:
    """Return the header, and the offset of a JPEG's first scan. `file` is positioned after `head`."""
    if format == "JPEG":
        jpeg = _scan_growing(file, head)
        check_pixels(jpeg.size, max_pixels)
        header = Header(
            format=format,
            size=upright_size(jpeg.size, jpeg.orientation),
            mode=jpeg.mode,
            bits=jpeg.precision,
            orientation=jpeg.orientation,
            icc=profile_name(jpeg.icc) if jpeg.icc else None,
            colour_space=colour_space(jpeg.icc, jpeg.mode) if jpeg.icc else None,
            frames=1,
            has_alpha=False,
            bytes=length,
        )
        return header, jpeg.scan
    file.seek(0)
    with quiet_pillow(), open_pillow(file, format, pixels=False) as image:
        check_pixels((image.height, image.width), max_pixels)
        bits = bits_of(image, head)
        orientation = pillow_orientation(image)
        stored = (image.height, image.width)
        icc = image.info.get("icc_profile")
        header = Header(
            format=format,
            size=stored if format == "TIFF" else upright_size(stored, orientation),  # Pillow turns TIFFs
            mode=image.mode,
            bits=bits,
            orientation=orientation,
            icc=profile_name(icc) if icc else None,
            colour_space=colour_space(icc, image.mode) if icc else None,
            frames=count_frames(image, format),
            has_alpha=image.mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in image.info,
            bytes=length,
        )
    return header, 0


def _scan_growing(file: BinaryIO, data: bytes) -> JpegHeader:
    """Scan a JPEG's header, reading eight times as much each time: metadata has a few bytes or several MB."""
    while True:
        try:
            return scan_jpeg(data)
        except IncompleteJpegError:
            more = file.read(7 * len(data))
            if not more:
                raise ValueError("truncated: the JPEG ends inside its header") from None
            data += more
