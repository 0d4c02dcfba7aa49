"""How many frames or pages an image has: Pillow walks those of GIF and TIFF in Python, which is bounded here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from calotype.images.limits import MAX_PAGES, MAX_READS, TooCostlyError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["bound_reads", "count_frames"]


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
