"""PNG: one walk over the chunks. Pillow gets those that make pixels; the metadata that counts is read here, bounded.

Pillow refuses whole images for long texts and profiles that nobody asked for, by limits that hold for the process.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NamedTuple

__all__ = ["Chunk", "chunks", "open_chunks"]

_MOST_CHUNKS: Final = 100_000
"""In one file: pixels in pieces of 4 KiB are 400 MB. Each costs a step in Python, here and in Pillow."""

_BLOCK: Final = 4096
"""Bytes read at a time."""

_MOST_METADATA: Final = 16 << 20
"""Bytes of a profile or of EXIF, inflated; the largest profiles in use have some 5 MB."""

_METADATA: Final = frozenset((b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf"))
"""The chunks that Pillow does not get. All others it checks itself, and refuses a damaged one."""

_UNREADABLE: Final = b"\x00"
"""Stands for a profile that was there, so that a note says why it is not used."""

_RAW_EXIF: Final = b"Raw profile type exif"
_XMP: Final = b"XML:com.adobe.xmp"


class Chunk(NamedTuple):
    """One chunk, as its first eight bytes announce it."""

    name: bytes
    start: int
    """Of its length, which stands in front of its name."""
    length: int
    """Of what it holds."""

    @property
    def end(self) -> int:
        return self.start + 12 + self.length


def chunks(file: BinaryIO) -> Iterator[Chunk]:
    """The chunks of a PNG in their order, up to and with IEND or the last one whose beginning is there.

    Raises:
        ValueError: There are more than any image needs.
    """
    position, first, block = 8, 0, b""
    for _ in range(_MOST_CHUNKS):
        if not first <= position <= first + len(block) - 8:  # the next ones too, where they are short
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
    """A PNG without what makes no pixels, and what Pillow's `info` holds of its metadata.

    Args:
        file: The whole file; seekable.
        pixels: False ends before the pixels, which is all that a header needs.

    Returns:
        A file for Pillow: `file` itself, at its beginning, where nothing is to be left out; and `icc_profile`, `exif`,
        `xmp` and `Raw profile type exif`, those that are there, also from behind the pixels.
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
    """What one chunk adds to Pillow's `info`; of texts, those that can name an orientation.

    Raises:
        ValueError: It is damaged. Of other texts nobody reads enough to know.
    """
    file.seek(chunk.start + 8)
    if chunk.name in (b"tEXt", b"zTXt", b"iTXt"):
        key = file.read(min(chunk.length, 80)).partition(b"\x00")[0]  # has 79 bytes at most
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
            return {"icc_profile": _inflated(rest[1:])}
        case b"zTXt":
            text = _inflated(rest[1:])
        case b"iTXt":
            text = (*rest[2:].split(b"\x00", 2), b"", b"")[2]  # behind a language and the key in it
            text = _inflated(text) if rest[:1] == b"\x01" else text
        case _:
            text = rest
    return {"xmp": text} if key == _XMP else {key.decode(): text.decode("latin-1")}


def _inflated(data: bytes) -> bytes:
    """What zlib makes of it, up to the limit."""
    try:
        return zlib.decompressobj().decompress(data, _MOST_METADATA) or _UNREADABLE
    except zlib.error:
        return _UNREADABLE
