"""`PositionedFile`: the position of a read-only file whose bytes are read at any offset."""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from typing import Any

__all__ = ["PositionedFile"]


class PositionedFile(io.RawIOBase):
    """A read-only file of a known length.

    Args:
        length: Its bytes.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length, self._position = length, 0

    @abstractmethod
    def read_at(self, position: int, length: int) -> bytes:
        """Return up to `length` bytes from an offset; none only at the end of the file."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.length}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
