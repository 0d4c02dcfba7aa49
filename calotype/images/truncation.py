"""`missing_end`: detect truncated files by their end and their tables, without decoding."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import BinaryIO, Final

from calotype.images.pillow import bound_reads
from calotype.images.png import chunks

__all__ = ["TAIL", "missing_end"]

TAIL: Final = 4096
"""Bytes at the end of a file that suffice for most."""

_IEND: Final = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_BOXES: Final = frozenset((b"ftyp", b"meta", b"mdat", b"moov", b"moof", b"free", b"skip", b"uuid", b"idat", b"pdin"))
"""Top-level boxes of ISO media files; anything else is stray data."""
_TIFF_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8}
_STARTS: Final = (273, 324)  # StripOffsets, TileOffsets
_LENGTHS: Final = (279, 325)  # StripByteCounts, TileByteCounts


def missing_end(file: BinaryIO, length: int, format: str, *, head: bytes, tail: bytes, scan: int = 0) -> str | None:
    """Return why a file is truncated, or None if it seems complete.

    Data after the image (padding, a motion photo's video, a second image) is allowed. Pixels of a truncated file may be
    complete: a PNG or an animation can be cut after them.

    Args:
        file: Seekable; read only if `tail` does not suffice.
        length: Of the file in bytes.
        format: The result of `sniff`.
        head: The first KiB, or more.
        tail: The last `TAIL` bytes.
        scan: For JPEG, the offset of the first scan.
    """
    try:
        match format:
            case "JPEG":
                return _jpeg(file, length, tail, scan)
            case "PNG":
                return None if _IEND in tail else _png(file, length)
            case "GIF":
                return None if tail.rstrip(b"\x00").endswith(b"\x3b") else _gif(file, head)
            case "WEBP":
                return _beyond("it says", 8 + int.from_bytes(head[4:8], "little"), length)
            case "BMP":
                return _bmp(length, head)
            case "TIFF":
                return _tiff(file, length, head)
            case _:
                return _boxes(file, length)
    except (struct.error, IndexError):  # the table or header itself is truncated or invalid
        return "the file ends inside its own tables"


def _beyond(what: str, end: int, length: int) -> str | None:
    return f"{what} {end:,} bytes, and {length:,} are there" if end > length else None


def _jpeg(file: BinaryIO, length: int, tail: bytes, scan: int) -> str | None:
    """Look for EOI after the first scan. In compressed data, 0xFF is followed by zero or a restart marker."""
    if tail.rfind(b"\xff\xd9") >= max(scan - (length - len(tail)), 0):
        return None
    file.seek(scan)  # EOI may be far from the end: a video or padding follows
    last = b""
    while block := file.read(1 << 20):
        if b"\xff\xd9" in last + block:
            return None
        last = block[-1:]
    zeros = len(tail) - len(tail.rstrip(b"\x00"))
    return "it has no end marker" + (f", and ends in {zeros:,} or more zero bytes" if zeros > 16 else "")


def _png(file: BinaryIO, length: int) -> str | None:
    for chunk in chunks(file):
        if chunk.name == b"IEND":
            return None
        if chunk.end > length:
            return f"its chunk {chunk.name.decode('ascii', 'replace')} would end at byte {chunk.end:,} of {length:,}"
    return "it has no IEND chunk"


def _gif(file: BinaryIO, head: bytes) -> str | None:
    """Walk the blocks, since stray data may follow the trailer."""
    file.seek(0)
    file = bound_reads(file, "GIF")
    file.seek(13 + _palette(head[10]))
    while kind := file.read(1):
        if kind == b"!":
            file.read(1)
        elif kind == b",":
            file.read(_palette(file.read(9)[8]) + 1)  # and the LZW code size
        else:
            return None  # the trailer, or stray data, where decoders stop
        size = file.read(1)
        while size > b"\x00":
            size = file.read(size[0] + 1)[size[0] :]  # with the size of the next block
    return "it has no trailer"


def _palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _bmp(length: int, head: bytes) -> str | None:
    """Compare the bytes of uncompressed rows; the last row's padding may be missing."""
    start, header = struct.unpack_from("<II", head, 10)
    if header < 40:  # OS/2's
        width, height, _, bits = struct.unpack_from("<HHHH", head, 18)
        packed = 0
    else:
        width, height, _, bits, packed = struct.unpack_from("<iiHHI", head, 18)
    if packed not in (0, 3, 6):
        return None
    row = (abs(width) * bits + 7) // 8
    return _beyond("its rows need", start + (row + 3) // 4 * 4 * (abs(height) - 1) + row, length)


def _boxes(file: BinaryIO, length: int) -> str | None:
    """Walk the boxes of AVIF and HEIF to the end of the file."""
    position = 0
    while position + 8 <= length:
        file.seek(position)
        size, name, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\x00"))
        if name not in _BOXES or not size:  # stray data, or a box up to the end of the file
            return None
        position += large if size == 1 else max(size, 8)
        if position > length:
            return f"its box {name.decode()} would end at byte {position:,} of {length:,}"
    return None


def _tiff(file: BinaryIO, length: int, head: bytes) -> str | None:
    """Check the first directory, and the strips or tiles in it."""
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\x00", b"\x00+")
    number, value = ("Q", 8) if big else ("I", 4)
    (directory,) = struct.unpack_from(order + number, head, 8 if big else 4)
    file.seek(directory)
    (entries,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    if directory + 12 * entries > length:
        return f"its directory of {entries:,} entries at byte {directory:,} ends after the file's {length:,} bytes"
    table = file.read(entries * (4 + 2 * value))
    found: dict[int, tuple[int, ...]] = {}
    for entry in range(0, len(table), 4 + 2 * value):
        tag, kind, count = struct.unpack_from(f"{order}HH{number}", table, entry)
        size = _TIFF_SIZES.get(kind, 1) * count
        where = entry + 4 + value
        if size > value:
            (offset,) = struct.unpack_from(order + number, table, where)
            if offset + size > length:
                return f"its tag {tag} lies at bytes {offset:,} to {offset + size:,} of {length:,}"
            if tag in _STARTS + _LENGTHS:
                file.seek(offset)
                found[tag] = _numbers(file.read(size), order, kind, count)
        elif tag in _STARTS + _LENGTHS:
            found[tag] = _numbers(table[where : where + size], order, kind, count)
    ends = [
        start + size
        for starts, lengths in zip(_STARTS, _LENGTHS, strict=True)
        for start, size in _pairs(found.get(starts, ()), found.get(lengths, ()))
    ]
    return _beyond("its pixels end after", max(ends, default=0), length)


def _numbers(data: bytes, order: str, kind: int, count: int) -> tuple[int, ...]:
    code = {3: "H", 4: "I", 16: "Q"}.get(kind)
    return struct.unpack(f"{order}{count}{code}", data) if code else ()


def _pairs(starts: tuple[int, ...], lengths: tuple[int, ...]) -> Iterable[tuple[int, int]]:
    """Pair offsets with byte counts, which old files may lack."""
    return zip(starts, lengths if len(lengths) == len(starts) else (1,) * len(starts), strict=True)
