"""`ImageReader`: read the pixels or the header of an image by its `ImageRef`."""

from __future__ import annotations

import copy
import io
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from PIL import Image

from calotype.errors import CalotypeError, ConfigError, DecodeError, DecompressionBombError, ImageError
from calotype.images.ahead import Begun
from calotype.images.decode import Decoded, Need, decode
from calotype.images.fetch import Fetcher
from calotype.images.formats import NotAnImageError
from calotype.images.header import Header, Look, look, read_header
from calotype.images.limits import MAX_PIXELS, TooCostlyError, TooManyPixelsError, check_bytes
from calotype.images.sources import local_path, open_source, read_source
from calotype.types import ImageRef

__all__ = ["ImageReader"]


class ImageReader:
    """Reads images. Has options only, so it is cheap to pickle, and thread-safe.

    Args:
        decode: `exact` decodes bit-equal to Pillow. `fast` lets `read(…, need=…)` decode a JPEG at 1/2, 1/4 or 1/8 of
            its size if at least 1.5 × `need` remains on both sides: up to twice as fast for large photos. After
            resampling, the PSNR to exact pixels is 42 to 53 dB; if a side is not a multiple of 8, the image is also
            stretched by up to half a scaled pixel.
        background: sRGB colour under transparent pixels, 0 to 255 each.
        max_pixels: Largest H × W of an image, checked before decoding. The default is Pillow's limit, 178,956,970. A
            local file may have 8 bytes per pixel of this, and 64 MiB.
        fetcher: Fetches URLs; None makes one with default limits.

    Raises:
        ConfigError: An option is out of range.
    """

    def __init__(
        self,
        *,
        decode: Literal["exact", "fast"] = "exact",
        background: tuple[int, int, int] = (255, 255, 255),
        max_pixels: int = MAX_PIXELS,
        fetcher: Fetcher | None = None,
    ) -> None:
        if decode not in ("exact", "fast"):
            raise ConfigError(f"decode: expected 'exact' or 'fast', not {decode!r}")
        colour = tuple(background)
        if len(colour) != 3 or not all(isinstance(level, int) and 0 <= level <= 255 for level in colour):
            raise ConfigError(f"background: expected three whole numbers from 0 to 255, not {background!r}")
        if not isinstance(max_pixels, int) or max_pixels < 1:
            raise ConfigError(f"max_pixels: expected a whole number above 0, not {max_pixels!r}")
        self.decode: Literal["exact", "fast"] = decode
        self.background: tuple[int, int, int] = colour
        self.max_pixels = max_pixels
        self.fetcher = fetcher if fetcher is not None else Fetcher()
        self._begun: Begun | None = None

    def read(self, ref: ImageRef, *, need: Need | None = None, data: bytes | None = None) -> Decoded:
        """Decode an image.

        Args:
            ref: The image.
            need: Maps the upright (H, W) to the (H, W) that the whole image will be resampled to; for a crop, the whole
                image at the crop's scale. Only used with `decode="fast"`.
            data: The result of `read_bytes`, if the caller has it.

        Returns:
            uint8 (H, W, 3), sRGB, upright, with notes on conversions.

        Raises:
            ImageError: The image can't be read; its `kind` classifies the reason.
            MissingDependencyError: The image needs an extra that is not installed.
        """
        with _as_image_errors(ref):
            return decode(
                self._source(ref) if data is None else data,
                background=self.background,
                max_pixels=self.max_pixels,
                need=need if self.decode == "fast" else None,
            )

    def read_bytes(self, ref: ImageRef) -> bytes:
        """Return the encoded file, byte for byte. Raises as `read` does."""
        with _as_image_errors(ref):
            return self._source(ref)

    def header(self, ref: ImageRef) -> Header:
        """Return the header. Decodes no pixels, and reads or fetches as little as possible. Raises as `read` does."""
        with _as_image_errors(ref), open_source(ref, self.fetcher, self._check_bytes) as (file, length):
            return read_header(file, length, max_pixels=self.max_pixels)

    def examine(self, ref: ImageRef, *, data: bytes | None = None) -> Look | ImageError:
        """Return the header and a check for truncation; or the error, as a value.

        Args:
            ref: The image.
            data: The result of `read_bytes`, if the caller has it.

        Raises:
            MissingDependencyError: The image needs an extra that is not installed.
        """
        try:
            with _as_image_errors(ref):
                if data is not None:
                    return look(io.BytesIO(data), len(data), max_pixels=self.max_pixels)
                with open_source(ref, self.fetcher, self._check_bytes) as (file, length):
                    return look(file, length, max_pixels=self.max_pixels)
        except ImageError as error:
            return error.without_traceback()

    def size(self, ref: ImageRef) -> tuple[int, int]:
        """Return the upright (H, W) from the header. Raises as `read` does."""
        return self.header(ref).size

    def ahead(self, refs: Iterable[ImageRef]) -> ImageReader:
        """Begin to fetch images by URL; return a reader like this one that takes them from there.

        Up to 32 are fetched at a time (the fetcher's `connections`), in this order, and 256 MiB of them wait for their
        reader. What the returned reader has not read when it is deleted is given up.
        """
        remote = [ref for ref in refs if local_path(ref) is None]
        if not remote:
            return self
        reader = copy.copy(self)
        reader._begun = self.fetcher.ahead.begin(remote, self._source)
        return reader

    def _source(self, ref: ImageRef) -> bytes:
        if self._begun is not None and ref.url is not None and (data := self._begun.take(ref.url)) is not None:
            return data
        return read_source(ref, self.fetcher, self._check_bytes)

    def _check_bytes(self, length: int) -> None:
        check_bytes(length, self.max_pixels)

    @property
    def options(self) -> tuple[Hashable, ...]:
        """The options that affect results: with equal ones, pixels and errors are equal."""
        return self.decode, self.background, self.max_pixels

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_begun": None}

    def __repr__(self) -> str:
        return f"ImageReader(decode={self.decode!r}, background={self.background}, max_pixels={self.max_pixels})"


@contextmanager
def _as_image_errors(ref: ImageRef) -> Iterator[None]:
    """Convert all errors to those that `read` documents: decoders raise many types on damaged bytes."""
    try:
        yield
    except CalotypeError:
        raise
    except (TooManyPixelsError, Image.DecompressionBombError) as error:
        raise DecompressionBombError(ref.name, str(error)) from error
    except TooCostlyError as error:
        raise DecompressionBombError(ref.name, str(error), kind="too_costly") from error
    except MemoryError as error:
        raise DecodeError(ref.name, "not enough memory to decode it", kind="unreadable") from error
    except NotAnImageError as error:
        raise DecodeError(ref.name, str(error), kind=error.kind) from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        kind = None
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; Pillow's have no errno
            kind = "unreadable"
        elif reason == "unknown pixel mode":  # Pillow's, of TIFFs
            reason, kind = f"its pixel layout is not supported ({reason}); save it as 8- or 16-bit RGB", "unsupported"
        elif "truncated" in reason.lower() or "premature end" in reason.lower():
            reason, kind = f"truncated: {reason.removeprefix('truncated: ')}", "truncated"
        raise DecodeError(ref.name, reason, kind=kind) from error
