"""EXIF and XMP orientation: read it from metadata, and apply it to pixels."""

from __future__ import annotations

import re
import struct

import numpy as np
import numpy.typing as npt

__all__ = ["exif_orientation", "upright", "upright_size", "xmp_orientation"]

_ORIENTATION = 0x0112
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation, 1 to 8, of an EXIF block; None if it is missing or damaged.

    Args:
        exif: The TIFF structure, with or without the leading `Exif` and two zero bytes.
    """
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (ifd,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, ifd)
        for entry in range(ifd + 2, ifd + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == _ORIENTATION:
                # The value stands in the entry itself: SHORT by the standard, BYTE and LONG in the wild.
                code = {1: "B", 3: "H", 4: "I"}.get(kind)
                value = struct.unpack_from(order + code, tiff, entry + 8)[0] if code else 0
                return value if 1 <= value <= 8 else None
    except struct.error:
        return None
    return None


def xmp_orientation(xmp: bytes | str) -> int | None:
    """Return the orientation of an XMP packet, or None. It counts where EXIF has none, as in Pillow."""
    found = _XMP.search(xmp.encode("utf-8", "surrogateescape") if isinstance(xmp, str) else xmp)
    return int(found[1]) if found else None


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Convert (H, W) as stored to upright (H, W)."""
    return (size[1], size[0]) if orientation >= 5 else size


def upright(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Turn pixels (H, W, …) as stored upright; return them C-contiguous.

    The cases are those of EXIF 2.32, tag 0x0112: where the stored row 0 and column 0 are in the upright image.
    """
    match orientation:
        case 2:  # top right: mirrored left to right
            pixels = pixels[:, ::-1]
        case 3:  # bottom right: rotated by 180°
            pixels = pixels[::-1, ::-1]
        case 4:  # bottom left: mirrored top to bottom
            pixels = pixels[::-1]
        case 5:  # left top: mirrored on the main diagonal
            pixels = pixels.swapaxes(0, 1)
        case 6:  # right top: rotated by 90° clockwise
            pixels = pixels.swapaxes(0, 1)[:, ::-1]
        case 7:  # right bottom: mirrored on the other diagonal
            pixels = pixels.swapaxes(0, 1)[::-1, ::-1]
        case 8:  # left bottom: rotated by 90° counter-clockwise
            pixels = pixels.swapaxes(0, 1)[::-1]
    return np.ascontiguousarray(pixels)
