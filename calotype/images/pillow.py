"""Pillow within limits and without its warnings: `open_pillow`; frames, bits and orientation of an opened image."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from PIL import Image

from calotype.errors import MissingDependencyError
from calotype.images.limits import MAX_PAGES, MAX_READS, TooCostlyError
from calotype.images.locks import ForkSafeLock
from calotype.images.orientation import xmp_orientation
from calotype.images.png import open_chunks

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["bits_of", "bound_reads", "count_frames", "open_pillow", "pillow_orientation", "quiet_pillow"]

_PLUGINS: Final = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
}
_BITS_PER_SAMPLE: Final = 258
_PALETTE_MODES: Final = ("P", "PA")
_ORIENTATION: Final = 0x0112

_lock = ForkSafeLock()
_inside = 0
_filter: Any = None

_LOGGERS: Final = ("PIL.Image", "PIL.ImageFile", *(module for module, _ in _PLUGINS.values()))
"""Each needs a filter: that of a parent does not apply to its children."""


def open_pillow(file: BinaryIO, format: str, *, pixels: bool) -> ImageFile:
    """Open a file with its plugin's class: read the header, no pixels.

    `PIL.Image.open` would check the size against a process-wide limit; here `max_pixels` is an argument.

    Args:
        file: Seekable, at its start.
        format: The result of `sniff`.
        pixels: Whether they will be loaded; if not, no more of the file is read than the header needs.

    Raises:
        MissingDependencyError: `format` is HEIF and pillow-heif is not installed.
        TooCostlyError: A GIF or TIFF has too many parts; also raised later, when more of it is read.
    """
    if format == "HEIF":
        try:
            from pillow_heif import HeifImageFile
        except ImportError:
            raise MissingDependencyError("pillow_heif", extra="heif", purpose="to read HEIC images") from None
        heif: ImageFile = HeifImageFile(file)  # type: ignore[no-untyped-call]
        return heif
    module, name = _PLUGINS[format]
    plugin = getattr(import_module(module), name)
    if format != "PNG":
        opened: ImageFile = plugin(bound_reads(file, format))
        return opened
    without, metadata = open_chunks(file, pixels=pixels)
    opened = plugin(without)
    for name, value in metadata.items():
        opened.info[name] = value
    return opened


class _Mine(threading.local):
    depth = 0


_mine = _Mine()


def _not_ours(record: logging.LogRecord) -> bool:
    """Drop what Pillow logs while this thread is in `quiet_pillow`; a user's own use of Pillow is not affected."""
    return not _mine.depth


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_not_ours)  # noqa: TID251 - Pillow's, and nothing is logged here


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore warnings of Pillow's modules while any thread is inside, and what they log in this thread.

    `warnings.catch_warnings` replaces the process-wide list of filters, so concurrent threads can restore a wrong one.
    This adds one filter when the first thread enters, and removes that filter when the last one leaves. Pillow's
    warnings (odd metadata) affect no pixel; it raises for what does.
    """
    global _inside, _filter
    with _lock:
        _inside += 1
        if _filter is None or _filter not in warnings.filters:
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _filter = warnings.filters[0]
    _mine.depth += 1
    try:
        yield
    finally:
        _mine.depth -= 1
        with _lock:
            _inside -= 1
            if not _inside:
                if _filter in warnings.filters:
                    warnings.filters.remove(_filter)  # type: ignore[attr-defined]  # a list, which typeshed hides
                _filter = None


def bound_reads(file: BinaryIO, format: str) -> BinaryIO:
    """Return a file that raises a `TooCostlyError` after too many reads, for formats that need it.

    Pillow reads each block of a GIF and each entry of a TIFF directory separately, so reads measure its work exactly,
    also in damaged files.

    Args:
        file: Seekable, at its start.
        format: The result of `sniff`.
    """
    if format not in MAX_READS:
        return file
    if format == "GIF":  # read sequentially, so a short file can't exceed the limit
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        if length <= MAX_READS[format]:
            return file
    return cast("BinaryIO", _CountedReads(file, format))


class _CountedReads:
    """A file with a limited number of reads."""

    def __init__(self, file: BinaryIO, format: str) -> None:
        self._file = file
        self._format = format
        self._left = MAX_READS[format]

    def read(self, size: int = -1, /) -> bytes:
        if not self._left:
            what = "blocks" if self._format == "GIF" else "entries in its directories"
            raise TooCostlyError(
                f"it is a {self._format} of too many {what}: reading them takes more than {MAX_READS[self._format]:,} "
                "steps; save its first frame as a PNG"
            )
        self._left -= 1
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def count_frames(image: ImageFile, format: str) -> int:
    """Count the frames or pages of an opened image, which stays at its first one.

    Raises:
        TooCostlyError: A TIFF has too many pages. Pillow compares the offset of each with all earlier ones.
    """
    if format != "TIFF":
        return getattr(image, "n_frames", 1)
    for page in range(1, MAX_PAGES + 1):
        try:
            image.seek(page)
        except EOFError:
            image.seek(0)
            return page
    raise TooCostlyError(
        f"it is a TIFF of more than {MAX_PAGES:,} pages, more than are read; save its first page as a file"
    )


def bits_of(image: ImageFile, head: bytes) -> int:
    """Return the bits per channel: 8 for most images and for palettes; else 1, 2, 4, 10, 12, 16 or 32.

    Pillow's modes do not show them: it opens 16-bit colour as `RGB`.

    Args:
        image: Opened and unchanged.
        head: The first 16 KiB of the file, or more.
    """
    if image.mode in _PALETTE_MODES:
        return 8
    if image.format == "PNG":
        return head[24]  # in IHDR, always the first chunk
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))))  # type: ignore[attr-defined]
    if image.format == "AVIF":
        # AV1CodecConfigurationRecord: the third byte has tier, high_bitdepth, twelve_bit, … from the highest bit.
        at = head.find(b"av1C") + 6
        flags = head[at] if 6 <= at < len(head) else 0
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    if image.format in ("HEIF", "HEIC"):
        return int(image.info.get("bit_depth", 8))
    return 1 if image.mode == "1" else 8


def pillow_orientation(image: Image.Image) -> int:
    """Return the orientation of an opened image, 1 to 8; damaged metadata counts as 1."""
    try:
        # Of the base class: PNG's override decodes all pixels to look for metadata after them.
        value = Image.Image.getexif(image).get(_ORIENTATION)
    except Exception:  # of every kind, on damaged EXIF
        value = None
    if value is None:
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        value = xmp_orientation(xmp) if isinstance(xmp, bytes | str) else None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
