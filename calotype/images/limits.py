"""What one image may ask for: pixels, a side, scans, pages, reads, bytes. All told before a pixel is decoded.

None is a limit of time: what a timer cuts off depends on the machine's load, and so would the dataset; and no decoder
can be interrupted. These bound the time by what decides it.
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
"""Where Pillow itself draws the line by default: twice `PIL.Image.MAX_IMAGE_PIXELS`, which is what fits a quarter of a
GiB at 3 bytes a pixel. About 13,377 pixels square."""

_MAX_SIDE: Final = 1_000_000
"""Pixels of one side. Each row costs decoders some bytes and time of its own."""

_USUAL_SCANS: Final = 16
"""Of a progressive JPEG; encoders make up to a dozen. So many are read whatever the size."""
_MAX_SCANS: Final = 100
_MAX_SCANNED: Final = _USUAL_SCANS * MAX_PIXELS
"""Scans times pixels: each scan goes over all of them."""

MAX_PAGES: Final = 10_000
"""Of a TIFF. Each costs Pillow a third of a millisecond."""

MAX_READS: Final = {"GIF": 8_000_000, "TIFF": 2_000_000}
"""Pillow's, until the frames are counted and the pixels loaded. Two for each block of a GIF, whose usual ones have 255
bytes: 1 GB. Two for each entry of a TIFF's directories, which cost some µs each: `MAX_PAGES` of 100 entries."""

_MOST_BYTES_A_PIXEL: Final = 8
"""Of an encoded file: 16-bit RGBA without compression."""
_METADATA: Final = 64 << 20

_DECODED: Final = {"JPEG": 7, "PNG": 9, "WEBP": 17, "AVIF": 13, "GIF": 9, "BMP": 9, "TIFF": 9, "HEIF": 13}
"""Bytes that decoding takes at its peak, for each pixel, at most: measured as the growth of a process."""

_PROGRESSIVE: Final = 13
"""The same of a JPEG of several scans, whose coefficients are kept, or that Pillow decodes."""


class TooManyPixelsError(Exception):
    """The header announces more pixels than allowed."""


class TooCostlyError(Exception):
    """It would take far more time or memory than its pixels are worth."""


def check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    """Refuses a header's (H, W) that comes to more than `max_pixels`, or has a side that no image has."""
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
    """Refuses a JPEG of (H, W) whose pixels are gone over more often than any encoder does."""
    if scans <= _USUAL_SCANS:
        return
    height, width = size
    if scans > _MAX_SCANS or scans * height * width > _MAX_SCANNED:
        most = min(_MAX_SCANS, max(_USUAL_SCANS, _MAX_SCANNED // (height * width)))
        raise TooCostlyError(
            f"it is a JPEG of {scans:,} scans over {width} x {height} pixels, and at most {most} are read at this "
            "size; save it again as a usual JPEG"
        )


def check_bytes(length: int, max_pixels: int) -> None:
    """Refuses an encoded file that is longer than `max_pixels` without any compression, and much metadata, come to."""
    most = _METADATA + _MOST_BYTES_A_PIXEL * max_pixels
    if length > most:
        raise TooCostlyError(
            f"it has {length:,} bytes, more than the {most:,} that max_pixels = {max_pixels:,} can take; if you trust "
            "it, raise max_pixels"
        )


def bytes_to_decode(format: str, size: tuple[int, int], *, progressive: bool = False) -> int:
    """How much memory decoding an image of (H, W) takes at its peak."""
    return size[0] * size[1] * (_PROGRESSIVE if progressive else _DECODED[format])
