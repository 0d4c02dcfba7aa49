"""`scan_sizes` and `scan_contents`: sizes and content hashes of many images, cached from one run to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from calotype.core.daemon_pool import DaemonPool
from calotype.core.file_state import FileState
from calotype.errors import ImageError
from calotype.images.cache_table import CacheTable, Key, file_keys
from calotype.images.read import ImageReader
from calotype.images.sources import local_path
from calotype.progress import Show, count_failure
from calotype.terminal import get_logger
from calotype.types import ImageRef

_log = get_logger("calotype")

__all__ = ["Content", "forget", "image_keys", "scan_contents", "scan_sizes", "threads_for"]

_CHUNK: Final = 1024
"""Images whose cached values are looked up at once."""
_SAVE_EVERY: Final = 512
"""Images read between two writes to the cache."""

_MANY_URLS: Final = 1000
"""Headers fetched by URL after which columns with the sizes are recommended."""

_LASTING: Final = FileState(0, 0, 0, 0)
"""File state of a URL, whose content is assumed not to change; see `forget`."""

T = TypeVar("T", bound=tuple[Any, ...])


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

    Sizes are cached by path and `FileState`, or by URL, in `$CALOTYPE_CACHE/sizes` (default `~/.cache/calotype/sizes`),
    also those that an interrupted run read. Of a URL only the header is fetched, once: its content is assumed not to
    change.

    Args:
        refs: N images.
        reader: Reads the headers. With URLs there are as many threads as its fetcher has connections.
        threads: More help with slow disks; parsing holds the GIL.
        progress: Called from this thread with (done, total) images.

    Returns:
        int32 (N, 2) of upright (H, W), 0 where an image can't be read; and (index, error) of those, in order.

    Raises:
        MissingDependencyError: An image needs an extra that is not installed.
    """
    refs = refs if isinstance(refs, Sequence) else list(refs)
    sizes = np.zeros((len(refs), 2), np.int32)
    errors: list[tuple[int, ImageError]] = []
    scan = _Scan(refs, reader, _size_table(), lambda row: (row[0], row[1]), threads, progress)
    advised = False
    for index, size in scan.run(lambda ref: reader.size(ref)):
        if scan.fetched == _MANY_URLS and not advised:
            advised = True
            _log.warning(
                "note: the sizes of images are fetched by URL, once; columns width and height in the data file would "
                "spare that"
            )
        if isinstance(size, ImageError):
            errors.append((index, size))
        else:
            sizes[index] = size
    return sizes, sorted(errors, key=lambda error: error[0])


def scan_contents(
    refs: Sequence[ImageRef],
    reader: ImageReader,
    *,
    threads: int = 4,
    progress: Show | None = None,
) -> list[Content | ImageError]:
    """Hash the files of many images; a later run only checks whether files changed.

    Hashes are cached by path and `FileState`, or by URL, in `$CALOTYPE_CACHE/contents` (default
    `~/.cache/calotype/contents`). A URL is fetched once: its content is assumed not to change.

    Args:
        refs: N images.
        reader: Reads the files. With URLs there are as many threads as its fetcher has connections.
        threads: Files read at once.
        progress: Called from this thread with (done, total) images.

    Returns:
        N contents in order, or errors where an image can't be read.

    Raises:
        MissingDependencyError: An image needs an extra that is not installed.
    """
    found: list[Content | ImageError | None] = [None] * len(refs)
    scan = _Scan(refs, reader, _content_table(), Content._make, threads, progress)
    for index, content in scan.run(lambda ref: _content(reader, ref)):
        found[index] = content
    return [content for content in found if content is not None]


def forget(ref: ImageRef) -> None:
    """Drop the cached size and content hash of an image: the next scan reads it, though its URL is the same."""
    for table in (_size_table(), _content_table()):
        with table:
            table.drop(image_keys([ref]))


def _size_table() -> CacheTable:
    state, values = FileState._fields, ("height", "width")
    return CacheTable("sizes", "sizes_2", key=("path", "part"), state=state, values=values, what="image sizes")


def _content_table() -> CacheTable:
    state, values = FileState._fields, ("digest", "height", "width")
    return CacheTable(
        "contents", "contents_2", key=("path", "part"), state=state, values=values, what="hashes of images"
    )


def _content(reader: ImageReader, ref: ImageRef) -> Content:
    data = reader.read_bytes(ref)
    look = reader.examine(ref, data=data)
    if isinstance(look, ImageError):
        raise look
    return Content(xxhash.xxh3_128_digest(data), *look.header.size)


class _Scan(Generic[T]):
    """Reads a value of each image that has none in the cache; the last columns of each are (height, width)."""

    def __init__(
        self,
        refs: Sequence[ImageRef],
        reader: ImageReader,
        table: CacheTable,
        value: Callable[[tuple[Any, ...]], T],
        threads: int,
        progress: Show | None,
    ) -> None:
        self._refs, self._reader, self._table, self._value = refs, reader, table, value
        self._threads, self._progress = threads, progress
        self._keys: dict[int, Key | None] = {}
        """Of the images that are being read."""
        self._cached: list[tuple[int, T]] = []
        self._done = 0
        self.fetched = 0
        """Images read by URL."""

    def run(self, read: Callable[[ImageRef], T]) -> Iterator[tuple[int, T | ImageError]]:
        """Yield (index, value or error) of every image, as they come.

        Args:
            read: Reads the value of one image; raises an ImageError.
        """
        rows: list[tuple[Any, ...]] = []
        threads = threads_for(self._refs, self._reader, self._threads)
        remote = any(ref.url is not None for ref in self._refs)

        def job(index: int) -> T | ImageError:
            try:
                return read(self._refs[index])
            except ImageError as error:
                return error.without_traceback()

        with self._table, DaemonPool(threads, "calotype-scan") as pool:
            try:
                for index, result in pool.unordered(job, self._missing()):
                    key = self._keys.pop(index)
                    self.fetched += remote and local_path(self._refs[index]) is None
                    if isinstance(result, ImageError):
                        count_failure(result.why)
                    elif key is not None:
                        rows.append((*key, *result))
                    if len(rows) >= _SAVE_EVERY:
                        self._table.put(rows)
                        rows = []
                    self._report(1)
                    yield index, result
                    if self._cached:
                        yield from self._take_cached()
            finally:
                self._table.put(rows)
            yield from self._take_cached()

    def _missing(self) -> Iterator[int]:
        """Yield the indices of images that have no value in the cache; the values of the others go to `_cached`."""
        most = self._reader.max_pixels  # may have been higher when the row was cached
        for start in range(0, len(self._refs), _CHUNK):
            chunk = self._refs[start : start + _CHUNK]
            keys = image_keys(chunk)
            missing = []
            for index, (key, row) in enumerate(zip(keys, self._table.get(keys), strict=True), start):
                if row is not None and row[-2] * row[-1] <= most:
                    self._cached.append((index, self._value(row)))
                else:
                    missing.append(index)
                    self._keys[index] = key
            self._report(len(chunk) - len(missing))
            yield from missing

    def _take_cached(self) -> list[tuple[int, T]]:
        cached, self._cached = self._cached, []
        return cached

    def _report(self, count: int) -> None:
        self._done += count
        if self._progress is not None and count:
            self._progress(self._done, len(self._refs))


def threads_for(refs: Iterable[ImageRef], reader: ImageReader, threads: int) -> int:
    """Return how many threads read images: `threads`, but with URLs, which wait, as many as there are connections."""
    return max(threads, reader.fetcher.connections) if any(ref.url is not None for ref in refs) else threads


def image_keys(refs: Sequence[ImageRef]) -> list[Key | None]:
    """Return the keys of images: of files by `file_keys`, of URLs by the URL alone."""
    if all(ref.url is None for ref in refs):
        return file_keys(refs)
    paths = [local_path(ref) for ref in refs]
    files = file_keys(
        replace(ref, path=path) if ref.path is None and path is not None else ref
        for ref, path in zip(refs, paths, strict=True)
    )
    return [
        (ref.url, "", *_LASTING) if path is None else key for ref, path, key in zip(refs, paths, files, strict=True)
    ]
