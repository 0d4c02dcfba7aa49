"""`scan_contents`: the hash and the true size of every image's file, remembered from one run to the next."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import xxhash

from calotype.core.file_state import FileState
from calotype.errors import ImageError
from calotype.images.memory import Key, Memory, file_keys
from calotype.images.read import ImageReader
from calotype.progress import Show
from calotype.types import ImageRef

__all__ = ["Content", "scan_contents"]

_CHUNK: Final = 256
"""Images for each thread between two writes to the memory."""


_LASTING: Final = FileState(0, 0, 0, 0)
"""Of what is behind a URL."""


class Content(NamedTuple):
    """What an image is, whatever it is called."""

    digest: bytes
    """xxh3-128 of the file's bytes (16 bytes)."""
    height: int
    """Upright, in pixels, as the header says."""
    width: int

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


def scan_contents(
    refs: Sequence[ImageRef],
    reader: ImageReader,
    *,
    threads: int = 4,
    progress: Show | None = None,
) -> list[Content | ImageError]:
    """Reads every image's file once; later runs ask the file system only whether the files are still the same.

    Remembered by path and `FileState` in `$CALOTYPE_CACHE/contents` (else `~/.cache/calotype/contents`). A URL is taken
    to give the same image for good, as a local copy of it would: it is fetched once, here or by whoever needs its
    pixels.

    Args:
        refs: The images.
        reader: Reads them.
        threads: How many files to read at once.
        progress: Called now and then, in the caller's thread, with (images done, images in all).

    Returns:
        One for each image, in order; an error where it can't be read.

    Raises:
        MissingDependencyError: An image needs an extra that is not installed.
    """
    found: list[Content | ImageError] = []
    with _memory() as memory, ThreadPoolExecutor(threads, thread_name_prefix="calotype-contents") as pool:
        for start in range(0, len(refs), _CHUNK * threads):
            chunk = refs[start : start + _CHUNK * threads]
            keys = _keys(chunk)
            known = [None if row is None else Content(*row) for row in memory.recall(keys)]
            known = [None if one is None or one.height * one.width > reader.max_pixels else one for one in known]
            read = pool.map(lambda ref: _read(reader, ref), [chunk[i] for i, one in enumerate(known) if one is None])
            made = [next(read) if one is None else one for one in known]
            memory.learn(
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


def _memory() -> Memory:
    state, values = FileState._fields, ("digest", "height", "width")
    return Memory("contents", "contents_2", key=("path", "part"), state=state, values=values, what="hashes of images")


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
