"""`KeptReader`: a reader that caches one decoded image, to sample it many times."""

from __future__ import annotations

from calotype.images import ImageReader
from calotype.images.decode import Decoded, Need
from calotype.images.jpeg import scale_for
from calotype.types import ImageRef

__all__ = ["KeptReader"]


class KeptReader(ImageReader):
    """Reads like `reader`, but decodes its image only once; with `decode="fast"`, once per scale.

    Args:
        reader: Reads the image, and all others.
        ref: The image to cache.
    """

    def __init__(self, reader: ImageReader, ref: ImageRef) -> None:
        super().__init__(
            decode=reader.decode, background=reader.background, max_pixels=reader.max_pixels, fetcher=reader.fetcher
        )
        self._reader, self._ref = reader, ref
        self._kept: dict[int, Decoded] = {}

    def read(self, ref: ImageRef, *, need: Need | None = None, data: bytes | None = None) -> Decoded:
        """Return the decoded image. Its pixels are shared: do not write to them. Raises as `ImageReader.read` does."""
        if ref != self._ref:
            return self._reader.read(ref, need=need, data=data)
        if self._kept and (scale := self._scale(self.any, need)) in self._kept:
            return self._kept[scale]
        decoded = self._reader.read(ref, need=need, data=data)
        self._kept[self._scale(decoded, need)] = decoded
        return decoded

    @property
    def any(self) -> Decoded:
        """The image at the scale of the first read."""
        return next(iter(self._kept.values()))

    def _scale(self, decoded: Decoded, need: Need | None) -> int:
        """Return the cache key: the scale at which a JPEG is decoded. Other formats are never scaled."""
        if need is None or self.decode == "exact":
            return 1
        return scale_for(decoded.original_size, need(decoded.original_size))
