"""The cache of image facts in `$CALOTYPE_CACHE/facts`: facts from headers by file, from pixels by content hash."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from calotype.check.pixel_facts import PixelFacts, decoders
from calotype.core.file_state import FileState
from calotype.errors import ImageError
from calotype.images import Header, ImageReader
from calotype.images.cache_table import CacheTable, Key
from calotype.images.header import Look

__all__ = ["FileFacts", "file_table", "from_pixel_row", "made_by", "pixel_table", "to_pixel_row"]

_FILES: Final = "files_2"
_PIXELS: Final = "pixels_1"
"""Version numbers: raised when a column is added or changes its meaning."""

_LASTING: Final = frozenset({"empty_file", "not_an_image", "unsupported", "truncated", "damaged"})
"""Problems that depend on a file's bytes only, so that they can be cached; an unreachable disk or server does not."""


class FileFacts(NamedTuple):
    """Facts from a file's header and last bytes, and its hash if one was needed: one row of the table."""

    format: str | None = None
    """This and the next ten fields are those of `Header`; None without a header."""
    height: int = 0
    width: int = 0
    mode: str = ""
    bits_a_channel: int = 0
    orientation: int = 0
    icc: str | None = None
    colour_space: str | None = None
    frames: int = 0
    alpha: int = 0
    length: int = 0
    sketch: bytes = b""
    """`Look.sketch`."""
    content: bytes | None = None
    """xxh3-128 of the whole file."""
    problem: str | None = None
    """Kind of the finding; None without a problem."""
    detail: str = ""

    @classmethod
    def of(cls, examined: Look | ImageError) -> FileFacts:
        """Convert the result of `ImageReader.examine`."""
        if isinstance(examined, ImageError):
            return cls(problem=examined.kind, detail=examined.reason)
        one, cut = examined.header, examined.cut
        return cls(
            format=one.format,
            height=one.size[0],
            width=one.size[1],
            mode=one.mode,
            bits_a_channel=one.bits,
            orientation=one.orientation,
            icc=one.icc,
            colour_space=one.colour_space,
            frames=one.frames,
            alpha=int(one.has_alpha),
            length=one.bytes,
            sketch=examined.sketch,
            problem=None if cut is None else "truncated",
            detail=cut or "",
        )

    @property
    def lasting(self) -> bool:
        return self.problem is None or self.problem in _LASTING

    def header(self) -> Header | None:
        """Return the header from the cached fields; None without one."""
        format, height, width, mode, bits, orientation, icc, space, frames, alpha, length = self[:11]
        if format is None:
            return None
        return Header(
            format=format,
            size=(height, width),
            mode=mode,
            bits=bits,
            orientation=orientation,
            icc=icc,
            colour_space=space,
            frames=frames,
            has_alpha=bool(alpha),
            bytes=length,
        )


def file_table() -> CacheTable:
    """Return the table of `FileFacts` by path, part and `FileState`."""
    return CacheTable(
        "facts",
        _FILES,
        key=("path", "part"),
        state=FileState._fields,
        values=FileFacts._fields,
        what="facts of images",
        made_by=decoders(),
    )


def pixel_table() -> CacheTable:
    """Return the table of `PixelFacts` by the file's hash: a copied, touched or moved file is not decoded again."""
    return CacheTable(
        "facts",
        _PIXELS,
        key=("content", "made_by"),
        state=(),
        values=("pixels", "phash", "notes", "problem", "detail"),
        what="facts of pixels",
    )


def made_by(reader: ImageReader) -> str:
    """Return what pixel facts depend on besides the bytes. The pixel limit is checked by the header each time."""
    return f"{decoders()}, background {reader.background}"


def to_pixel_row(key: Key, facts: PixelFacts) -> tuple[Any, ...]:
    """Return the row of `pixel_table()`."""
    phash = None if facts.phash is None else facts.phash.to_bytes(8)  # as bytes: SQLite's integers are signed
    notes = json.dumps(facts.notes) if facts.notes else None
    return (*key, facts.pixels, phash, notes, *(facts.problem or (None, None)))


def from_pixel_row(row: tuple[Any, ...]) -> PixelFacts:
    """Return the facts from the value columns of `pixel_table()`."""
    digest, phash, notes, kind, why = row
    return PixelFacts(
        digest,
        None if phash is None else int.from_bytes(phash),
        tuple(json.loads(notes)) if notes else (),
        None if kind is None else (kind, why),
    )
