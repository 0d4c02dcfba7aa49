"""Facts about each image: from its header and last bytes, and on request from its pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import xxhash

from calotype.check.facts_memory import (
    FileFacts,
    file_table,
    from_pixel_row,
    made_by,
    pixel_table,
    to_pixel_row,
)
from calotype.check.pixel_facts import PixelFacts, pixel_facts
from calotype.core.daemon_pool import DaemonPool
from calotype.errors import ImageError
from calotype.images import Header, ImageReader
from calotype.images.cache_table import CacheTable, Key
from calotype.images.scan import image_keys, threads_for
from calotype.images.sources import local_path
from calotype.progress import Show, count_failure
from calotype.types import ImageRef

__all__ = ["Facts", "scan_facts"]

_CHUNK: Final = 512
"""Number of images between two writes to the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts about one image."""

    header: Header | None
    """None if it can't be read; `problem` has the reason."""
    problem: tuple[str, str] | None = None
    """(kind of finding, detail) of the reason that training can't use it; None for a good image."""
    content: bytes | None = None
    """xxh3-128 of the file's bytes; None if no other image has the same length, beginning and end."""
    pixels: bytes | None = None
    """xxh3-128 of the decoded upright pixels and their shape; None without `deep`."""
    phash: int | None = None
    """64-bit perceptual hash (DCT) of the upright image; None without `deep`."""
    notes: tuple[str, ...] = ()
    """`Decoded.notes`; `grey` if all pixels are grey; `incomplete: …` if data after the pixels is missing. Empty
    without `deep`."""


def scan_facts(
    refs: Sequence[ImageRef],
    reader: ImageReader,
    *,
    deep: bool,
    threads: int,
    progress: Show | None = None,
    refetch: bool = False,
) -> list[Facts]:
    """Read the facts of every image; a second run only checks that the files are unchanged.

    Facts are cached in `$CALOTYPE_CACHE/facts` (default `~/.cache/calotype/facts`): facts from headers by path, length
    and modification time, or by URL; facts from pixels by the hash of the file. An interrupted scan saves its results
    so far. A URL is fetched once: its content is assumed not to change. A failed fetch is not cached.

    Args:
        refs: The images. To compare two datasets, scan both in one call: a file is hashed only if another one of the
            call may be equal.
        reader: Reads the images.
        deep: Decode every image, and hash every file.
        threads: Number of images to read or decode at once, each of them in memory. With URLs, as many as the reader's
            fetcher has connections.
        progress: Called in the caller's thread with (images done, total). The total grows by the number of files to
            hash.
        refetch: Fetch images by URL also if their facts are cached.

    Raises:
        MissingDependencyError: An image needs an extra that is not installed.
    """
    with (
        file_table() as files,
        pixel_table() as pixels,
        DaemonPool(threads_for(refs, reader, threads), "calotype-facts") as pool,
    ):
        return _Scan(refs, reader, deep, files, pixels, pool, progress, refetch).run()


class _Scan:
    """One call of `scan_facts`."""

    def __init__(
        self,
        refs: Sequence[ImageRef],
        reader: ImageReader,
        deep: bool,
        file_cache: CacheTable,
        pixel_cache: CacheTable,
        pool: DaemonPool,
        progress: Show | None,
        refetch: bool,
    ) -> None:
        self._refs, self._reader, self._deep = refs, reader, deep
        self._file_cache, self._pixel_cache, self._pool = file_cache, pixel_cache, pool
        self._refetch = refetch
        self._progress = progress or (lambda done, total: None)
        self._done = 0
        self._made_by = made_by(reader)
        self._keys: list[Key | None] = []
        self._files: list[FileFacts | None] = []
        self._pixels: list[PixelFacts | None] = []

    def run(self) -> list[Facts]:
        # Headers, and with `deep` pixels: from the cache, else from the files.
        total = len(self._refs)
        self._work(self._missing(), self._look, total=total)
        # Hashes of files that may be equal.
        self._done = total
        twins = self._twins()
        self._work(twins, self._compare, total=total + len(twins))
        return [_facts(file, seen) for file, seen in zip(self._files, self._pixels, strict=True) if file is not None]

    def _missing(self) -> Iterator[int]:
        """Yield the indices of images whose facts are not cached."""
        for start in range(0, len(self._refs), _CHUNK):
            self._recall(self._refs[start : start + _CHUNK])
            todo = [place for place in range(start, len(self._files)) if self._lacks(place)]
            self._report(len(self._files) - start - len(todo), total=len(self._refs))
            yield from todo

    def _report(self, count: int, *, total: int) -> None:
        self._done += count
        self._progress(self._done, total)

    def _recall(self, refs: Sequence[ImageRef]) -> None:
        """Append the cached facts of the next images; None for those that are not cached."""
        keys = image_keys(refs)
        known = keys
        if self._refetch:
            known = [None if local_path(ref) is None else key for ref, key in zip(refs, keys, strict=True)]
        most = self._reader.max_pixels  # may have been higher when the row was cached
        files = [None if row is None else FileFacts._make(row) for row in self._file_cache.get(known)]
        files = [None if file is None or file.height * file.width > most else file for file in files]
        seen: list[PixelFacts | None] = [None] * len(files)
        if self._deep:
            contents = [None if file is None or file.content is None else self._content_key(file) for file in files]
            found = self._pixel_cache.get(contents)
            seen = [None if row is None else from_pixel_row(row) for row in found]
        self._keys += keys
        self._files += files
        self._pixels += seen

    def _content_key(self, file: FileFacts) -> Key:
        return file.content, self._made_by

    def _lacks(self, place: int) -> bool:
        file = self._files[place]
        return file is None or (self._deep and file.format is not None and self._pixels[place] is None)

    def _work(self, places: Iterable[int], job: Callable[[int], _Found], *, total: int) -> None:
        """Run a job for each index on all threads, and cache the results, also when interrupted."""
        found: list[int] = []
        try:
            for place, result in self._pool.unordered(job, places):
                self._files[place], self._pixels[place] = result
                found.append(place)
                if len(found) == _CHUNK:
                    self._keep(found)
                    found = []
                self._report(1, total=total)
        finally:
            self._keep(found)

    def _keep(self, places: Sequence[int]) -> None:
        files, seen = [], []
        for place in places:
            file, pixels, key = self._files[place], self._pixels[place], self._keys[place]
            if file is not None and key is not None and file.lasting:
                files.append((*key, *file))
            if file is not None and pixels is not None and pixels.lasting:
                seen.append(to_pixel_row(self._content_key(file), pixels))
        self._file_cache.put(files)
        self._pixel_cache.put(seen)

    def _look(self, place: int) -> _Found:
        ref, file = self._refs[place], self._files[place]
        if not self._deep and ref.path is not None and ref.key is None:
            return FileFacts.of(self._reader.examine(ref)), None
        try:
            data = self._reader.read_bytes(ref)
        except ImageError as error:
            count_failure(error.why)
            return FileFacts.of(error), None
        if file is None:
            file = FileFacts.of(self._reader.examine(ref, data=data))
        file = file._replace(content=xxhash.xxh3_128_digest(data))
        if not self._deep or file.format is None:
            return file, None
        known = self._pixel_cache.get([self._content_key(file)])[0]  # found for a copy or a moved file
        return file, pixel_facts(ref, data, self._reader) if known is None else from_pixel_row(known)

    def _twins(self) -> list[int]:
        """Return the indices of files that may equal another one and are not hashed yet."""
        likes = [
            (file.length, file.sketch) if file is not None and file.format is not None else None for file in self._files
        ]
        counts = Counter(likes)
        return [
            place
            for place, (like, file) in enumerate(zip(likes, self._files, strict=True))
            if like is not None and counts[like] > 1 and file is not None and file.content is None
        ]

    def _compare(self, place: int) -> _Found:
        file = self._files[place]
        assert file is not None
        try:
            data = self._reader.read_bytes(self._refs[place])
        except ImageError as error:
            count_failure(error.why)
            return FileFacts.of(error), None
        return file._replace(content=xxhash.xxh3_128_digest(data)), None


_Found = tuple[FileFacts, PixelFacts | None]
"""The result of a job for one image."""


def _facts(file: FileFacts, seen: PixelFacts | None) -> Facts:
    problem = None if file.problem is None else (file.problem, file.detail)
    if seen is None:
        return Facts(header=file.header(), problem=problem, content=file.content)
    # The decoder decides: bytes that are missing at the end may not be pixel data.
    notes = seen.notes
    if problem is not None and seen.problem is None:
        notes += (f"incomplete: {file.detail}",)
    return Facts(
        header=file.header(),
        problem=seen.problem,
        content=file.content,
        pixels=seen.pixels,
        phash=seen.phash,
        notes=notes,
    )
