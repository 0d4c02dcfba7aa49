"""PNG: pass the chunks with pixels to Pillow, and read the relevant metadata here, within limits.

Pillow raises for long texts and profiles, which affect no pixel, by process-wide limits.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NamedTuple

__all__ = ["Chunk", "chunks", "open_chunks"]

_MOST_CHUNKS: Final = 100_000
"""Chunks of a file: 400 MB in chunks of 4 KiB. Each takes a step in Python, here and in Pillow."""

_BLOCK: Final = 4096
"""Bytes read at a time."""

_MOST_METADATA: Final = 16 << 20
"""Bytes of a decompressed profile or EXIF block; the largest profiles in use have some 5 MB."""

_METADATA: Final = frozenset((b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf"))
"""Chunks not passed to Pillow. It checks the checksums of all others."""

_UNREADABLE: Final = b"\x00"
"""Placeholder of an unreadable profile, so that a note reports it."""

_RAW_EXIF: Final = b"Raw profile type exif"
_XMP: Final = b"XML:com.adobe.xmp"


class Chunk(NamedTuple):
    """A chunk, from its first eight bytes."""

    name: bytes
    start: int
    """Offset of the chunk in the file (of its length field)."""
    length: int
    """Bytes of its data."""

    @property
    def end(self) -> int:
        return self.start + 12 + self.length


def chunks(file: BinaryIO) -> Iterator[Chunk]:
    """Yield the chunks of a PNG in order, up to IEND or the last one with a header.

    Raises:
        ValueError: There are too many.
    """
    position, first, block = 8, 0, b""
    for _ in range(_MOST_CHUNKS):
        if not first <= position <= first + len(block) - 8:  # one read covers several short chunks
            file.seek(position)
            first, block = position, file.read(_BLOCK)
            if len(block) < 8:
                return
        at = position - first
        chunk = Chunk(block[at + 4 : at + 8], position, int.from_bytes(block[at : at + 4]))
        yield chunk
        if chunk.name == b"IEND":
            return
        position = chunk.end
    raise ValueError(f"it has more than {_MOST_CHUNKS:,} chunks")


def open_chunks(file: BinaryIO, *, pixels: bool) -> tuple[BinaryIO, dict[str, Any]]:
    """Return a PNG without metadata, and its metadata for Pillow's `info`.

    Args:
        file: The whole file; seekable.
        pixels: Whether to include the pixels; a header needs none.

    Returns:
        A file for Pillow, which is `file` at its start if it has no metadata; and those of `icc_profile`, `exif`, `xmp`
        and `Raw profile type exif` that it has, before or after the pixels.
    """
    info: dict[str, Any] = {}
    parts: list[tuple[int, int]] = [(0, 8)]
    dropped = begun = False
    for chunk in chunks(file):
        if chunk.name in _METADATA:
            dropped = True
            info |= _read(file, chunk)
        elif pixels or not begun:
            begun = chunk.name == b"IDAT"
            start, end = chunk.start, chunk.end if pixels or not begun else chunk.start + 8
            if parts[-1][1] == start:
                start = parts.pop()[0]
            parts.append((start, end))
    if pixels and not dropped:
        file.seek(0)
        return file, info
    kept = []
    for start, end in parts:
        file.seek(start)
        kept.append(file.read(end - start))
    return io.BytesIO(b"".join(kept)), info


def _read(file: BinaryIO, chunk: Chunk) -> dict[str, Any]:
    """Return what one chunk adds to Pillow's `info`; texts only if they can have an orientation.

    Raises:
        ValueError: Its checksum is wrong. Other texts are not read.
    """
    file.seek(chunk.start + 8)
    if chunk.name in (b"tEXt", b"zTXt", b"iTXt"):
        key = file.read(min(chunk.length, 80)).partition(b"\x00")[0]  # at most 79 bytes
        if key not in (_RAW_EXIF, _XMP):
            return {}
        file.seek(chunk.start + 8)
    if chunk.length > _MOST_METADATA:
        return {"icc_profile": _UNREADABLE} if chunk.name == b"iCCP" else {}
    data, checksum = file.read(chunk.length), file.read(4)
    if zlib.crc32(chunk.name + data) != int.from_bytes(checksum):
        raise ValueError(f"the checksum of its chunk {chunk.name.decode()} is wrong")
    key, _, rest = data.partition(b"\x00")
    match chunk.name:
        case b"eXIf":
            return {"exif": b"Exif\x00\x00" + data}
        case b"iCCP":
            return {"icc_profile": _decompress(rest[1:])}
        case b"zTXt":
            text = _decompress(rest[1:])
        case b"iTXt":
            text = (*rest[2:].split(b"\x00", 2), b"", b"")[2]  # after the language and the translated key
            text = _decompress(text) if rest[:1] == b"\x01" else text
        case _:
            text = rest
    return {"xmp": text} if key == _XMP else {key.decode(): text.decode("latin-1")}


def _decompress(data: bytes) -> bytes:
    """Decompress, up to the limit."""
    try:
        return zlib.decompressobj().decompress(data, _MOST_METADATA) or _UNREADABLE
    except zlib.error:
        return _UNREADABLE
