"""JPEG: one walk over the markers gives the header; simplejpeg gives the pixels, the same ones as Pillow."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calotype.images.orientation import exif_orientation, xmp_orientation

__all__ = ["IncompleteJpegError", "JpegHeader", "OddJpegError", "count_scans", "decode_jpeg", "scale_for", "scan_jpeg"]

_SOF = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
# A marker with a length, or the end. Passed over: fill bytes, stray data between segments, which libjpeg skips too, and
# TEM, SOI and RSTn, which have no length.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_SCAN = re.compile(rb"\xff\xda")  # three times as fast as bytes.count
_MOST_SEGMENTS = 4096
"""Before the pixels: 256 MB of metadata at the length that segments have as a rule."""
_EXIF = b"Exif\x00\x00"
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_ICC = b"ICC_PROFILE\x00"

# What libjpeg warns of without a pixel being at stake (jerror.h); everything else it warns of is damage.
_HARMLESS = re.compile(
    r"extraneous bytes before marker|unknown JFIF revision|Unknown Adobe color transform"
    r"|Invalid SOS parameters|bad ICC marker"
)


class IncompleteJpegError(Exception):
    """The markers go on after the bytes given: read more, or it is truncated."""


class OddJpegError(Exception):
    """libjpeg warns of something that need not concern a pixel, and stops there: Pillow reads on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegHeader:
    """What stands in front of the first scan."""

    size: tuple[int, int]
    """(H, W) as stored, not yet upright."""
    components: int
    precision: int
    """Bits of a sample: 8, or 12 in the rare case."""
    frame: int
    """The SOF marker's second byte: 0xC0 baseline, 0xC1 extended, 0xC2 progressive."""
    orientation: int
    icc: bytes | None
    scan: int
    """Where the first scan begins; pixels from here on."""

    @property
    def mode(self) -> str:
        """Pillow's name for the stored colours."""
        return {1: "L", 3: "RGB", 4: "CMYK"}.get(self.components, f"{self.components} components")

    @property
    def plain(self) -> bool:
        """True when simplejpeg and Pillow give the same pixels: 8-bit Huffman, grey or three components."""
        return self.precision == 8 and self.components in (1, 3) and self.frame in (0xC0, 0xC1, 0xC2)


def scan_jpeg(data: bytes) -> JpegHeader:
    """Walks the markers up to the first scan.

    Raises:
        IncompleteJpegError: `data` ends before the first scan.
        ValueError: No frame header before the first scan, or no marker where one must stand.
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
    """How often the pixels are gone over: once, or as often as a progressive file has scans; at least that."""
    if header.frame in (0xC0, 0xC1) and data[header.scan + 2 : header.scan + 3] == bytes((header.components,)):
        return 1  # all colours in the first scan: no decoder takes another one
    few = len(_SCAN.findall(data, header.scan - 2))  # also those in a second image or a video behind this one
    if few <= 16:
        return few
    scans, position = 0, header.scan - 2
    while (found := _MARKER.search(data, position)) and found[1] != b"\xd9":
        scans += found[1] == b"\xda"
        position = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2]))
    return scans


def scale_for(size: tuple[int, int], need: tuple[int, int], *, margin: float = 1.5) -> int:
    """The largest of 8, 4, 2, 1 that divides an image and leaves `margin` times `need` on both sides.

    Only powers of two: scaling by 5/8 and the like is slower than none. Both sizes are (H, W), the same way up.
    """
    for factor in (8, 4, 2):
        if all(_scaled(side, factor) >= margin * wanted for side, wanted in zip(size, need, strict=True)):
            return factor
    return 1


def _scaled(side: int, factor: int) -> int:
    """Rounded, so that the scaled image shows the original's extent to half a pixel of its own."""
    return (side + factor // 2) // factor


def decode_jpeg(data: bytes, header: JpegHeader, *, factor: int = 1) -> npt.NDArray[np.uint8]:
    """The pixels as stored: uint8 (H, W, 3), or (H, W) of a grey JPEG.

    The slow accurate DCT and smooth chroma upsampling, as Pillow has them: bit-equal at `factor` 1.

    Args:
        data: The whole file.
        header: Of the same file; must be `plain`.
        factor: 1, 2, 4 or 8: decodes to H / factor by W / factor, rounded, in the DCT.

    Raises:
        ValueError: Truncated or damaged, in libjpeg's words.
        OddJpegError: Neither, but not quite right; in libjpeg's words too.
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
    if factor > 1:  # libjpeg rounds up; a last column that stands for less than half a pixel is mostly padding
        height, width = (_scaled(side, factor) for side in header.size)
        pixels = np.ascontiguousarray(pixels[:height, :width])
    return pixels[..., 0] if header.components == 1 else pixels
