"""What a picture's header says, without decoding a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from calotype.images.colour import profile_name
from calotype.images.decode import check_pixels, pillow_orientation
from calotype.images.formats import HEAD, open_pillow, sniff
from calotype.images.jpeg import IncompleteJpegError, JpegHeader, scan_jpeg
from calotype.images.orientation import upright_size
from calotype.images.quiet import quiet_pillow

__all__ = ["Header", "read_header"]

_FIRST = 16 * 1024
_METADATA_CHUNKS = frozenset((b"eXIf", b"tEXt", b"zTXt", b"iTXt"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One picture's facts."""

    format: str
    """`JPEG`, `PNG`, `WEBP`, `AVIF`, `GIF`, `BMP`, `TIFF` or `HEIF`: by content, whatever the file is called."""
    size: tuple[int, int]
    """(H, W) in pixels, upright."""
    mode: str
    """Pillow's name of the stored colours: `RGB`, `L`, `CMYK`, `P`, `RGBA`, `I;16`, …"""
    orientation: int
    """EXIF's, 1 to 8, as found; `size` has it applied."""
    icc: str | None
    """The embedded colour profile's description, None without one."""
    frames: int
    """Above 1: animated, or several pages."""
    has_alpha: bool
    """True when pixels can be transparent."""
    bytes: int
    """Length of the encoded file."""


def read_header(file: BinaryIO, length: int, *, max_pixels: int) -> Header:
    """Reads as little of `file` as the format allows.

    Args:
        file: At its beginning; seekable.
        length: Bytes it holds.
        max_pixels: As for decoding; more are refused.

    Raises:
        TooManyPixelsError: More than `max_pixels`.
        MissingDependencyError: A HEIC without pillow-heif.
        Exception: Whatever the parsers raise on damaged bytes.
    """
    data = file.read(_FIRST)
    format = sniff(data[:HEAD])
    if format == "JPEG":
        jpeg = _scan_growing(file, data)
        check_pixels(jpeg.size, max_pixels)
        return Header(
            format=format,
            size=upright_size(jpeg.size, jpeg.orientation),
            mode=jpeg.mode,
            orientation=jpeg.orientation,
            icc=profile_name(jpeg.icc) if jpeg.icc else None,
            frames=1,
            has_alpha=False,
            bytes=length,
        )
    late = format == "PNG" and _has_late_metadata(file)
    file.seek(0)
    with quiet_pillow(), open_pillow(file, format) as image:
        check_pixels((image.height, image.width), max_pixels)
        if late:
            image.load()
        orientation = pillow_orientation(image)
        stored = (image.height, image.width)
        icc = image.info.get("icc_profile")
        return Header(
            format=format,
            size=stored if format == "TIFF" else upright_size(stored, orientation),  # Pillow turns TIFFs by itself
            mode=image.mode,
            orientation=orientation,
            icc=profile_name(icc) if icc else None,
            frames=getattr(image, "n_frames", 1),
            has_alpha=image.mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in image.info,
            bytes=length,
        )


def _scan_growing(file: BinaryIO, data: bytes) -> JpegHeader:
    """Metadata before the first scan may be a few bytes or several MB: eight times as much at each try."""
    while True:
        try:
            return scan_jpeg(data)
        except IncompleteJpegError:
            more = file.read(7 * len(data))
            if not more:
                raise ValueError("truncated: the JPEG ends inside its header") from None
            data += more


def _has_late_metadata(file: BinaryIO) -> bool:
    """True when a PNG names its orientation after the pixels, where only reading all of it finds it: rare."""
    position, seen_pixels = 8, False
    while True:
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8 or chunk[4:] == b"IEND":
            return False
        seen_pixels = seen_pixels or chunk[4:] == b"IDAT"
        if seen_pixels and chunk[4:] in _METADATA_CHUNKS:
            return True
        position += 12 + int.from_bytes(chunk[:4])
