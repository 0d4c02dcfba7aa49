"""`scan_sizes` and `scan_contents`: sizes and content hashes of many images, cached from one run to the next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from calotype.core.file_state import FileState
from calotype.errors import ImageError
from calotype.images.cache_table import CacheTable, Key, file_keys
from calotype.images.read import ImageReader
from calotype.progress import Show
from calotype.types import ImageRef

__all__ = ["Content", "scan_contents", "scan_sizes"]

_CHUNK: Final = 256
"""Images per thread between two writes to the cache."""


_LASTING: Final = FileState(0, 0, 0, 0)
"""File state of a URL, whose content is assumed not to change."""


class Content(NamedTuple):
    """Hash and size of an image file."""

    digest: bytes
    """xxh3-128 of the file's bytes (16 bytes)."""
    height: int
    """Of the upright image, in pixels, from the header."""
    width: int

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


def scan_sizes(
    refs: Iterable[ImageRef],
    reader: ImageReader,
    *,
    threads: int = 4,
    progress: Show | None = None,
) -> tuple[npt.NDArray[np.int32], list[tuple[int, ImageError]]]:
    """Read the sizes of many images from their headers; a later run only checks whether files changed.

    Sizes are cached by path and `FileState` in `$CALOTYPE_CACHE/sizes` (default `~/.cache/calotype/sizes`), those of
    URLs are not. For a URL, the image is fetched (and cached with the fetcher's `downloads`).

    Args:
        refs: N images.
        reader: Reads the headers.
        threads: More help with slow disks or servers; parsing holds the GIL.
        progress: Called from this thread with (done, total) images.

    Returns:
        int32 (N, 2) of upright (H, W), 0 where an image can't be read; and (index, error) of those, in order.

    Raises:
        MissingDependencyError: An image needs an extra that is not installed.
    """
    refs = refs if isinstance(refs, Sequence) else list(refs)
    sizes = np.zeros((len(refs), 2), np.int32)
    errors: list[tuple[int, ImageError]] = []
    with _size_table() as memory, ThreadPoolExecutor(threads, thread_name_prefix="calotype-sizes") as pool:
        done = 0
        for start in range(0, len(refs), _CHUNK * threads):
            chunk = [refs[index] for index in range(start, min(start + _CHUNK * threads, len(refs)))]
            keys = file_keys(chunk)
            found = memory.get(keys)
            missing = [
                index for index, size in enumerate(found) if size is None or size[0] * size[1] > reader.max_pixels
            ]
            new = []
            read = pool.map(lambda ref: _size(reader, ref), [chunk[index] for index in missing])
            for index, size in zip(missing, read, strict=True):
                if isinstance(size, ImageError):
                    errors.append((start + index, size))
                    found[index] = None
                    continue
                found[index] = size
                key = keys[index]
                if key is not None:
                    new.append((*key, *size))
            memory.put(new)
            sizes[start : start + len(chunk)] = [size or (0, 0) for size in found]
            done += len(chunk)
            if progress is not None:
                progress(done, len(refs))
    return sizes, errors


def _size_table() -> CacheTable:
    state, values = FileState._fields, ("height", "width")
    return CacheTable("sizes", "sizes_2", key=("path", "part"), state=state, values=values, what="image sizes")


def _size(reader: ImageReader, ref: ImageRef) -> tuple[int, int] | ImageError:
    try:
        return reader.size(ref)
    except ImageError as error:
        return error.without_traceback()


def scan_contents(
    refs: Sequence[ImageRef],
    reader: ImageReader,
    *,
    threads: int = 4,
    progress: Show | None = None,
) -> list[Content | ImageError]:
    """Hash the files of many images; a later run only checks whether files changed.

    Hashes are cached by path and `FileState` in `$CALOTYPE_CACHE/contents` (default `~/.cache/calotype/contents`). A
    URL is fetched once: its content is assumed not to change.

    Args:
        refs: N images.
        reader: Reads the files.
        threads: Files read at once.
        progress: Called from this thread with (done, total) images.

    Returns:
        N contents in order, or errors where an image can't be read.

    Raises:
        MissingDependencyError: An image needs an extra that is not installed.
    """
    found: list[Content | ImageError] = []
    with _content_table() as memory, ThreadPoolExecutor(threads, thread_name_prefix="calotype-contents") as pool:
        for start in range(0, len(refs), _CHUNK * threads):
            chunk = refs[start : start + _CHUNK * threads]
            keys = _keys(chunk)
            known = [None if row is None else Content(*row) for row in memory.get(keys)]
            known = [None if one is None or one.height * one.width > reader.max_pixels else one for one in known]
            read = pool.map(lambda ref: _read(reader, ref), [chunk[i] for i, one in enumerate(known) if one is None])
            made = [next(read) if one is None else one for one in known]
            memory.put(
                [
                    (*key, *one)
                    for key, before, one in zip(keys, known, made, strict=True)
                    if before is None and key is not None and isinstance(one, Content)
                ]
            )
            found += made
            if progress is not None:
                progress(len(found), len(refs))
    return found


def _content_table() -> CacheTable:
    state, values = FileState._fields, ("digest", "height", "width")
    return CacheTable(
        "contents", "contents_2", key=("path", "part"), state=state, values=values, what="hashes of images"
    )


def _keys(refs: Sequence[ImageRef]) -> list[Key | None]:
    of_files = file_keys(refs)
    return [key if ref.url is None else (ref.url, "", *_LASTING) for ref, key in zip(refs, of_files, strict=True)]


def _read(reader: ImageReader, ref: ImageRef) -> Content | ImageError:
    try:
        data = reader.read_bytes(ref)
        look = reader.examine(ref, data=data)
    except ImageError as error:
        return error.without_traceback()
    if isinstance(look, ImageError):
        return look
    return Content(xxhash.xxh3_128_digest(data), *look.header.size)
