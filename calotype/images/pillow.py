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
    """Opens by the plugin's own class: reads the header, no pixels.

    Args:
        file: At its beginning; seekable.
        format: What `sniff` says.
        pixels: Whether they will be loaded; without, no more of a file is read than its header needs.

    `PIL.Image.open` would warn of, or refuse, a size by a process-wide limit; ours is an argument, so its check is
    passed by.

    Raises:
        MissingDependencyError: `format` is HEIF and pillow-heif is not installed.
        TooCostlyError: A GIF or TIFF of too many parts; also raised later, when more of the image is read.
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
    """False for what Pillow logs while this very thread is inside; what a user does with Pillow is the user's."""
    return not _mine.depth


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_not_ours)  # noqa: TID251 - Pillow's, and nothing is logged here


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignores the warnings that Pillow's own modules raise, while any thread is inside, and what they log in this one.

    `warnings.catch_warnings` swaps the process-wide list of filters, so two threads in it at once can leave the wrong
    list behind. This puts one filter in front of the list when the first thread comes in and takes that very one out
    when the last leaves. What Pillow warns of (odd metadata) costs no pixel; what does cost pixels it raises.
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
    """Return `file`, or one at its beginning whose reads are counted and end in a `TooCostlyError`.

    Pillow reads each block of a GIF and each entry of a TIFF directory by itself, so reads measure its work exactly,
    whatever is damaged or overlaps.

    Args:
        file: At its beginning; seekable.
        format: What `sniff` says.
    """
    if format not in MAX_READS:
        return file
    if format == "GIF":  # read forwards, a byte or more at a time: a short file needs no count
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        if length <= MAX_READS[format]:
            return file
    return cast("BinaryIO", _CountedReads(file, format))


class _CountedReads:
    """A file that can be read from a limited number of times."""

    def __init__(self, file: BinaryIO, format: str) -> None:
        self._file = file
        self._format = format
        self._left = MAX_READS[format]

    def read(self, size: int = -1, /) -> bytes:
        if not self._left:
            what = "blocks" if self._format == "GIF" else "entries in its directories"
            raise TooCostlyError(
                f"it is a {self._format} of too many {what}: reading them takes more than {MAX_READS[self._format]:,} "
                "steps; save its first frame as a usual PNG"
            )
        self._left -= 1
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def count_frames(image: ImageFile, format: str) -> int:
    """Count the frames or pages of an opened image, which is at its first one then, as before.

    Raises:
        TooCostlyError: A TIFF of too many pages. Pillow compares the position of each with all before it.
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
        f"it is a TIFF of more than {MAX_PAGES:,} pages, and so many are not read; save its first page by itself"
    )


def bits_of(image: ImageFile, head: bytes) -> int:
    """Bits a channel: 8 for most and for palettes, whose colours have 8; else 1, 2, 4, 10, 12, 16 or 32.

    Args:
        image: Opened, and not yet changed.
        head: The file's first bytes; 16 KiB are plenty.
    """
    if image.mode in _PALETTE_MODES:
        return 8
    if image.format == "PNG":
        return head[24]  # in IHDR, which always comes first
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))))  # type: ignore[attr-defined]
    if image.format == "AVIF":
        # AV1CodecConfigurationRecord: the third byte is tier, high_bitdepth, twelve_bit, … from the highest bit on.
        at = head.find(b"av1C") + 6
        flags = head[at] if 6 <= at < len(head) else 0
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    if image.format in ("HEIF", "HEIC"):
        return int(image.info.get("bit_depth", 8))
    return 1 if image.mode == "1" else 8


def pillow_orientation(image: Image.Image) -> int:
    """The orientation that an opened Pillow image names, 1 to 8; damaged metadata counts as 1."""
    try:
        # The base class's: that of PNG would decode all pixels to look for metadata behind them.
        value = Image.Image.getexif(image).get(_ORIENTATION)
    except Exception:  # of every kind, on damaged EXIF
        value = None
    if value is None:
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        value = xmp_orientation(xmp) if isinstance(xmp, bytes | str) else None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
