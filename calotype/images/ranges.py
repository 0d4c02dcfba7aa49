"""Parts of an image on a server: `Part`, the answer to a range request; `RemoteFile` reads an image by such parts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

import urllib3

from calotype.images.positioned_file import PositionedFile

__all__ = ["Part", "RemoteFile", "content_range", "is_encoded", "is_usable"]

_FIRST: Final = 16 * 1024
"""Bytes of the first request: what most headers need, and about what a server sends before it waits for the client."""
_GROWTH: Final = 8
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Part(NamedTuple):
    """Some bytes of an image."""

    data: bytes
    start: int
    """Offset of `data` in the image."""
    total: int
    """Bytes of the whole image."""


def content_range(response: urllib3.BaseHTTPResponse) -> tuple[int, int] | None:
    """Return (start, bytes of the whole image) of a partial answer; None if it is none, or does not have them."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    return (int(found[1]), int(found[3])) if found and response.status == 206 else None


def is_usable(response: urllib3.BaseHTTPResponse, start: int) -> bool:
    """Whether an answer to a range request can be used: it is whole, or begins at `start` and is not compressed."""
    if response.status == 206:
        return (content_range(response) or (-1,))[0] == start and not is_encoded(response)
    return response.status != 416


def is_encoded(response: urllib3.BaseHTTPResponse) -> bool:
    """Whether the body is compressed: then its length is not the image's."""
    return response.headers.get("content-encoding", "identity").lower() != "identity"


class RemoteFile(PositionedFile):
    """An image on a server as a file: its beginning, and more of it only when that is read.

    Args:
        fetch: Returns bytes (start, stop) of the image, or the whole image.

    Raises:
        ValueError: The image changed between two requests.
    """

    def __init__(self, fetch: Callable[[int, int], Part]) -> None:
        self._fetch = fetch
        self._data, _, length = fetch(0, _FIRST)
        super().__init__(length)

    def read_at(self, position: int, length: int) -> bytes:
        while position >= len(self._data) and position < self.length:
            self._grow(position + 1)
        return self._data[position : position + length]

    def _grow(self, least: int) -> None:
        """Fetch more, up to offset `least` or further."""
        have = len(self._data)
        part = self._fetch(have, max(least, _GROWTH * have))
        if part.total != self.length or part.start not in (0, have) or part.start + len(part.data) <= have:
            raise ValueError("the image on the server changed while it was read")
        self._data = self._data[: part.start] + part.data
