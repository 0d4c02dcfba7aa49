"""Limits of one image: pixels, sides, scans, pages, reads, bytes. All are checked before pixels are decoded.

There is no time limit: its effect would depend on the machine's load, and decoders can't be interrupted. These limits
bound the time by what determines it.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "MAX_PAGES",
    "MAX_PIXELS",
    "MAX_READS",
    "TooCostlyError",
    "TooManyPixelsError",
    "bytes_to_decode",
    "check_bytes",
    "check_pixels",
    "check_scans",
]

MAX_PIXELS: Final = 178_956_970
"""Pillow's default limit: twice `PIL.Image.MAX_IMAGE_PIXELS`, which is a quarter of a GiB at 3 bytes a pixel. About
13,377 pixels square."""

_MAX_SIDE: Final = 1_000_000
"""Pixels of one side. Each row costs decoders memory and time."""

_FREE_SCANS: Final = 16
"""Scans of a progressive JPEG that are read at any size; encoders write up to a dozen."""
_MAX_SCANS: Final = 100
_MAX_SCANNED: Final = _FREE_SCANS * MAX_PIXELS
"""Scans × pixels."""

MAX_PAGES: Final = 10_000
"""Pages of a TIFF. Each takes Pillow a third of a millisecond."""

MAX_READS: Final = {"GIF": 8_000_000, "TIFF": 2_000_000}
"""Reads of Pillow, until frames are counted and pixels loaded. Two for each block of a GIF, of up to 255 bytes: 1 GB.
Two for each entry of a TIFF's directories, at some µs each: `MAX_PAGES` of 100 entries."""

_MOST_BYTES_A_PIXEL: Final = 8
"""Bytes per pixel of a file: 16-bit RGBA without compression."""
_METADATA: Final = 64 << 20

_DECODED: Final = {"JPEG": 7, "PNG": 9, "WEBP": 17, "AVIF": 13, "GIF": 9, "BMP": 9, "TIFF": 9, "HEIF": 13}
"""Most bytes per pixel at the peak of decoding, measured as the growth of a process."""

_PROGRESSIVE: Final = 13
"""The same for a JPEG with several scans, whose coefficients stay in memory, or one that Pillow decodes."""


class TooManyPixelsError(Exception):
    """The header has more pixels than `max_pixels`."""


class TooCostlyError(Exception):
    """Decoding would take much more time or memory than the pixels need."""


def check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    """Raise for an (H, W) of more than `max_pixels`, or with too long a side."""
    height, width = size
    if height * width > max_pixels:
        raise TooManyPixelsError(
            f"its header announces {width} x {height} = {height * width:,} pixels, more than max_pixels = "
            f"{max_pixels:,}; if you trust it, raise max_pixels"
        )
    if max(size) > _MAX_SIDE:
        raise TooCostlyError(
            f"its header announces {width} x {height} pixels, and a side of more than {_MAX_SIDE:,} is not read; "
            "cut it into pieces"
        )


def check_scans(scans: int, size: tuple[int, int]) -> None:
    """Raise for a JPEG of (H, W) with more scans than encoders write."""
    if scans <= _FREE_SCANS:
        return
    height, width = size
    if scans > _MAX_SCANS or scans * height * width > _MAX_SCANNED:
        most = min(_MAX_SCANS, max(_FREE_SCANS, _MAX_SCANNED // (height * width)))
        raise TooCostlyError(
            f"it is a JPEG of {scans:,} scans over {width} x {height} pixels, and at most {most} are read at this "
            "size; save it again as a baseline JPEG"
        )


def check_bytes(length: int, max_pixels: int) -> None:
    """Raise for a file longer than `max_pixels` uncompressed pixels and 64 MiB of metadata."""
    most = _METADATA + _MOST_BYTES_A_PIXEL * max_pixels
    if length > most:
        raise TooCostlyError(
            f"it has {length:,} bytes, more than the {most:,} that max_pixels = {max_pixels:,} can take; if you trust "
            "it, raise max_pixels"
        )


def bytes_to_decode(format: str, size: tuple[int, int], *, progressive: bool = False) -> int:
    """Return the peak memory of decoding an image of (H, W), in bytes."""
    return size[0] * size[1] * (_PROGRESSIVE if progressive else _DECODED[format])
