"""A reader for one image that is drawn many times: what it has decoded, it keeps."""

from __future__ import annotations

from calotype.images import ImageReader
from calotype.images.decode import Decoded, Need
from calotype.images.jpeg import scale_for
from calotype.types import ImageRef

__all__ = ["KeptReader"]


class KeptReader(ImageReader):
    """Return what `reader` returns, and decode once; with `decode="fast"`, once for each scale.

    Args:
        reader: Reads.
        ref: The one image.
    """

    def __init__(self, reader: ImageReader, ref: ImageRef) -> None:
        super().__init__(
            decode=reader.decode, background=reader.background, max_pixels=reader.max_pixels, fetcher=reader.fetcher
        )
        self._reader, self._ref = reader, ref
        self._kept: dict[int, Decoded] = {}

    def read(self, ref: ImageRef, *, need: Need | None = None, data: bytes | None = None) -> Decoded:
        """The image's pixels, shared: don't write to them. Raises as `ImageReader.read` does."""
        if ref != self._ref:
            return self._reader.read(ref, need=need, data=data)
        if self._kept and (scale := self._scale(self.any, need)) in self._kept:
            return self._kept[scale]
        decoded = self._reader.read(ref, need=need, data=data)
        self._kept[self._scale(decoded, need)] = decoded
        return decoded

    @property
    def any(self) -> Decoded:
        """Return the whole image at a scale that was needed."""
        return next(iter(self._kept.values()))

    def _scale(self, decoded: Decoded, need: Need | None) -> int:
        """Which decode answers; for an image that is no JPEG, and so never scaled, it is only a name."""
        if need is None or self.decode == "exact":
            return 1
        return scale_for(decoded.original_size, need(decoded.original_size))
