"""Images for the page: thumbnails, made once and kept on disk, and larger views; never larger than they are shown."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import numpy as np
import simplejpeg
import xxhash
from PIL import Image

from calotype.core.atomic import replace_file
from calotype.core.cache_folder import cache_folder
from calotype.core.file_state import FileState, file_holding, file_state
from calotype.images import ImageReader
from calotype.images.decode import Decoded
from calotype.types import ImageRef

__all__ = ["THUMBNAIL", "VIEW", "Pictures", "picture_version", "stamp"]

THUMBNAIL: Final = 320
"""Longer side in pixels."""
VIEW: Final = 2048

_FORMAT: Final = 1
"""Of what is kept; goes up when thumbnails are made otherwise."""
_MOST_BYTES: Final = 1 << 30
_BORN: Final = os.urandom(8)


def stamp(ref: ImageRef) -> FileState | None:
    """The state of the file that holds an image; None where it is not there, or not on this machine."""
    return None if ref.path is None else file_state(file_holding(ref.path, ref.key))


def picture_version(ref: ImageRef, state: FileState | None) -> str:
    """Names an image in its present state: what an address with it gives never changes.

    Args:
        ref: The image.
        state: Its `stamp`.
    """
    # Nobody can tell whether one without a state changes: its name holds for this run of the server.
    name = f"{_FORMAT}\n{ref.path}\n{ref.offset}\n{ref.size}\n{ref.url}\n"
    digest = xxhash.xxh3_128(name.encode("utf-8", "surrogateescape"))
    digest.update(str(state).encode() if state is not None else _BORN)
    digest.update(ref.key or b"")
    return digest.hexdigest()


class Pictures:
    """Makes and keeps them. Safe from any number of threads.

    Thumbnails are kept in `$CALOTYPE_CACHE/thumbnails` (else `~/.cache/calotype/thumbnails`), by the file's path and
    state, up to 1 GiB, the newest ones; those of URLs are not, since only the server knows whether they changed.

    Args:
        reader: Reads the originals, with its limits.
    """

    def __init__(self, reader: ImageReader) -> None:
        # Scaled decodes: a thumbnail needs no more, and they are several times as fast.
        self._reader = ImageReader(
            decode="fast", background=reader.background, max_pixels=reader.max_pixels, fetcher=reader.fetcher
        )
        self._folder = cache_folder("thumbnails")

    def thumbnail(self, ref: ImageRef) -> bytes:
        """A JPEG of at most `THUMBNAIL` pixels a side.

        Raises:
            ImageError: The image can't be read.
            MissingDependencyError: It needs an extra that is not installed.
        """
        state = stamp(ref)
        if state is None:
            return self._make(ref, THUMBNAIL, quality=82)
        name = picture_version(ref, state)
        file = self._folder / name[:2] / f"{name[2:]}.jpg"
        with contextlib.suppress(OSError):
            return file.read_bytes()
        data = self._make(ref, THUMBNAIL, quality=82)
        if stamp(ref) == state:  # else it may be of the next state
            with contextlib.suppress(OSError):  # a cache that can't be written costs time, and nothing else
                _write(file, data)
        return data

    def view(self, ref: ImageRef) -> bytes:
        """A JPEG of at most `VIEW` pixels a side. Raises as `thumbnail` does."""
        return self._make(ref, VIEW, quality=90)

    def prune(self) -> None:
        """Removes the oldest thumbnails where they are more than 1 GiB."""
        files = []
        with contextlib.suppress(OSError):
            for path in self._folder.glob("*/*"):
                info = path.stat()
                files.append((info.st_mtime, info.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= _MOST_BYTES:
                break
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            total -= size

    def _make(self, ref: ImageRef, side: int, *, quality: int) -> bytes:
        # The reader leaves half as much again as is asked for: for a page the very size is enough, 1/8 instead of 1/4.
        decoded = self._reader.read(ref, need=lambda size: _fit(size, side * 2 // 3))
        pixels = _resized(decoded, side)
        data: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420")
        return data


def _fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(H, W) of the same shape, at most `side` a side; never enlarged."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(decoded: Decoded, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    height, width = _fit(decoded.original_size, side)
    image = Image.fromarray(decoded.pixels)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return np.ascontiguousarray(image)


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, data, durable=False)
