"""`Thumbnails`: JPEGs for the page: thumbnails, which are cached on disk, and larger views."""

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

__all__ = ["THUMBNAIL", "VIEW", "Thumbnails", "image_version", "stamp"]

THUMBNAIL: Final = 320
"""Longer side in pixels."""
VIEW: Final = 2048

_FORMAT: Final = 1
"""Version of the cache; increases when thumbnails are generated differently."""
_MAX_CACHE_BYTES: Final = 1 << 30
_PROCESS: Final = os.urandom(8)


def stamp(ref: ImageRef) -> FileState | None:
    """Return the state of the file of an image; None where it is missing or remote."""
    return None if ref.path is None else file_state(file_holding(ref.path, ref.key))


def image_version(ref: ImageRef, state: FileState | None) -> str:
    """Return the version of an image in its current state: a URL with it is immutable.

    Args:
        ref: The image.
        state: The result of `stamp` for it.
    """
    # Changes of a remote image can't be detected: its version is valid for this run of the server.
    name = f"{_FORMAT}\n{ref.path}\n{ref.offset}\n{ref.size}\n{ref.url}\n"
    digest = xxhash.xxh3_128(name.encode("utf-8", "surrogateescape"))
    digest.update(str(state).encode() if state is not None else _PROCESS)
    digest.update(ref.key or b"")
    return digest.hexdigest()


class Thumbnails:
    """Generates and caches thumbnails. Thread-safe.

    Thumbnails are cached in `$CALOTYPE_CACHE/thumbnails` (default `~/.cache/calotype/thumbnails`), with the
    file's path and state as key; above 1 GiB the oldest ones are evicted. Those of URLs are not cached.

    Args:
        reader: Reads the originals, with its limits.
    """

    def __init__(self, reader: ImageReader) -> None:
        # Scaled JPEG decoding is accurate enough for a thumbnail, and several times as fast.
        self._reader = ImageReader(
            decode="fast", background=reader.background, max_pixels=reader.max_pixels, fetcher=reader.fetcher
        )
        self._folder = cache_folder("thumbnails")

    def thumbnail(self, ref: ImageRef) -> bytes:
        """Return a JPEG of at most `THUMBNAIL` pixels per side.

        Raises:
            ImageError: The image can't be read.
            MissingDependencyError: It needs an extra that is not installed.
        """
        state = stamp(ref)
        if state is None:
            return self._make(ref, THUMBNAIL, quality=82)
        name = image_version(ref, state)
        file = self._folder / name[:2] / f"{name[2:]}.jpg"
        with contextlib.suppress(OSError):
            return file.read_bytes()
        data = self._make(ref, THUMBNAIL, quality=82)
        if stamp(ref) == state:  # otherwise it may show the new state
            with contextlib.suppress(OSError):  # a cache that can't be written only costs time
                _write(file, data)
        return data

    def view(self, ref: ImageRef) -> bytes:
        """Return a JPEG of at most `VIEW` pixels per side. Raises as `thumbnail` does."""
        return self._make(ref, VIEW, quality=90)

    def prune(self) -> None:
        """Evict the oldest thumbnails above 1 GiB."""
        files = []
        with contextlib.suppress(OSError):
            for path in self._folder.glob("*/*"):
                info = path.stat()
                files.append((info.st_mtime, info.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= _MAX_CACHE_BYTES:
                break
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            total -= size

    def _make(self, ref: ImageRef, side: int, *, quality: int) -> bytes:
        # The reader decodes at 1.5 times the requested size; for a page the exact size is enough (1/8 instead of 1/4).
        decoded = self._reader.read(ref, need=lambda size: _fit(size, side * 2 // 3))
        pixels = _resized(decoded, side)
        data: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420")
        return data


def _fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return (H, W) with the same aspect ratio, at most `side` per side; never enlarged."""
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
