"""JPEG: `scan_jpeg` walks the markers for the header; `decode_jpeg` decodes with simplejpeg, bit-equal to Pillow."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calotype.images.orientation import exif_orientation, xmp_orientation

__all__ = ["IncompleteJpegError", "JpegHeader", "OddJpegError", "count_scans", "decode_jpeg", "scale_for", "scan_jpeg"]

_SOF = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
# A marker with a length, or EOI. Skips fill bytes, stray data between segments (as libjpeg does), and markers without a
# length: TEM, SOI and RSTn.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_SCAN = re.compile(rb"\xff\xda")  # three times as fast as bytes.count
_MOST_SEGMENTS = 4096
"""Before the pixels: 256 MB of metadata in segments of 64 KB."""
_MARGIN = 1.5  # of a scaled decode over the size that is needed
_EXIF = b"Exif\x00\x00"
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_ICC = b"ICC_PROFILE\x00"

# Warnings of libjpeg that affect no pixel (jerror.h); all others mean damage.
_HARMLESS = re.compile(
    r"extraneous bytes before marker|unknown JFIF revision|Unknown Adobe color transform"
    r"|Invalid SOS parameters|bad ICC marker"
)


class IncompleteJpegError(Exception):
    """The bytes end inside the header: read more, or the file is truncated."""


class OddJpegError(Exception):
    """simplejpeg stopped at a harmless warning of libjpeg; Pillow decodes such files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegHeader:
    """Facts from the segments before the first scan."""

    size: tuple[int, int]
    """(H, W) as stored, before orientation."""
    components: int
    precision: int
    """Bits per channel: 8, rarely 12."""
    frame: int
    """The SOF marker's second byte: 0xC0 baseline, 0xC1 extended, 0xC2 progressive."""
    orientation: int
    icc: bytes | None
    scan: int
    """Offset of the first scan's pixels."""

    @property
    def mode(self) -> str:
        """Pillow's mode of the stored pixels."""
        return {1: "L", 3: "RGB", 4: "CMYK"}.get(self.components, f"{self.components} components")

    @property
    def plain(self) -> bool:
        """Whether simplejpeg and Pillow decode equal pixels: 8-bit Huffman, one or three components."""
        return self.precision == 8 and self.components in (1, 3) and self.frame in (0xC0, 0xC1, 0xC2)


def scan_jpeg(data: bytes) -> JpegHeader:
    """Read the markers up to the first scan.

    Raises:
        IncompleteJpegError: `data` ends before the first scan.
        ValueError: There is no frame header before the first scan, or a segment is invalid.
    """
    frame = 0
    precision = height = width = components = 0
    exif: bytes | None = None
    xmp: bytes | None = None
    icc: dict[int, bytes] = {}
    position = 2
    end = len(data)
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None:
            raise IncompleteJpegError
        marker, position = found[1][0], found.end()
        if marker == 0xD9:
            raise ValueError("the JPEG ends before any pixels")
        if position + 2 > end:
            raise IncompleteJpegError
        length = data[position] << 8 | data[position + 1]
        if length < 2:
            raise ValueError(f"JPEG marker 0xff{marker:02x} has the impossible length {length}")
        if marker == 0xDA:
            break
        if position + length > end:
            raise IncompleteJpegError
        body = position + 2
        if marker in _SOF:
            if length < 8:
                raise ValueError("the JPEG's frame header is cut short")
            frame, precision = marker, data[body]
            height, width = int.from_bytes(data[body + 1 : body + 3]), int.from_bytes(data[body + 3 : body + 5])
            components = data[body + 5]
        elif marker == 0xE1 and exif is None and data.startswith(_EXIF, body):
            exif = data[body : position + length]
        elif marker == 0xE1 and xmp is None and data.startswith(_XMP, body):
            xmp = data[body : position + length]
        elif marker == 0xE2 and data.startswith(_ICC, body) and length >= 16:
            icc[data[body + 12]] = data[body + 14 : position + length]
        position += length
    else:
        raise ValueError(f"the JPEG has more than {_MOST_SEGMENTS:,} segments before its pixels")
    if not frame or not height or not width:
        raise ValueError("the JPEG has no frame header with a size")
    orientation = exif_orientation(exif) if exif else None
    if orientation is None and xmp:
        orientation = xmp_orientation(xmp)
    return JpegHeader(
        size=(height, width),
        components=components,
        precision=precision,
        frame=frame,
        orientation=orientation or 1,
        icc=b"".join(icc[part] for part in sorted(icc)) or None,
        scan=position,
    )


def count_scans(data: bytes, header: JpegHeader) -> int:
    """Return an upper bound of the scans: 1, or those of a progressive file."""
    if header.frame in (0xC0, 0xC1) and data[header.scan + 2 : header.scan + 3] == bytes((header.components,)):
        return 1  # all components in the first scan: decoders ignore others
    few = len(_SCAN.findall(data, header.scan - 2))  # includes those in a second image or video after this one
    if few <= 16:
        return few
    scans, position = 0, header.scan - 2
    while (found := _MARKER.search(data, position)) and found[1] != b"\xd9":
        scans += found[1] == b"\xda"
        position = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2]))
    return scans


def scale_for(size: tuple[int, int], need: tuple[int, int]) -> int:
    """Return the largest of 8, 4, 2, 1 by which an image can be reduced to at least 1.5 × `need` on both sides.

    Only powers of two: libjpeg's other scales are slower than none. Both sizes are (H, W) in one orientation.
    """
    for factor in (8, 4, 2):
        if all(_scaled(side, factor) >= _MARGIN * wanted for side, wanted in zip(size, need, strict=True)):
            return factor
    return 1


def _scaled(side: int, factor: int) -> int:
    """Divide with rounding: the scaled image covers the original to half a scaled pixel."""
    return (side + factor // 2) // factor


def decode_jpeg(data: bytes, header: JpegHeader, *, factor: int = 1) -> npt.NDArray[np.uint8]:
    """Return the pixels as stored: uint8 (H, W, 3), or (H, W) for a grey JPEG.

    Uses the accurate DCT and smooth chroma upsampling, as Pillow does: bit-equal to it at `factor` 1.

    Args:
        data: The whole file.
        header: Of this file; must be `plain`.
        factor: 1, 2, 4 or 8: decode in the DCT to (H / factor, W / factor), rounded.

    Raises:
        ValueError: The file is truncated or damaged (libjpeg's message).
        OddJpegError: libjpeg has a harmless warning (its message).
    """
    import simplejpeg

    height, width = (-(-side // factor) for side in header.size)
    try:
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data,
            "GRAY" if header.components == 1 else "RGB",
            fastdct=False,
            fastupsample=False,
            min_height=height if factor > 1 else 0,
            min_width=width if factor > 1 else 0,
            min_factor=factor,
        )
    except ValueError as error:
        if _HARMLESS.search(str(error)):
            raise OddJpegError(str(error)) from None
        raise
    if factor > 1:  # libjpeg rounds up; a last column of less than half a pixel is mostly padding
        height, width = (_scaled(side, factor) for side in header.size)
        pixels = np.ascontiguousarray(pixels[:height, :width])
    return pixels[..., 0] if header.components == 1 else pixels
