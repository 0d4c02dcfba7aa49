"""Read the header of a safetensors file: the names, shapes and offsets of its tensors. No tensor is read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, Final

__all__ = ["HEADER_START", "header_of"]

HEADER_START: Final = 8
"""Bytes before the header: its length as a little-endian integer."""
_LONGEST: Final = 64 << 20
"""Maximum bytes of a header; those of the largest checkpoints have a few hundred kilobytes."""


def header_of(file: BinaryIO) -> tuple[int, Mapping[str, Any]] | None:
    """Read the header of an open file, from its beginning.

    Returns:
        Its length in bytes and its contents; None if the file does not begin like a safetensors file.

    Raises:
        OSError: The file can't be read.
    """
    file.seek(0)
    length = int.from_bytes(file.read(HEADER_START), "little")
    if not 0 < length <= min(os.fstat(file.fileno()).st_size, _LONGEST):
        return None
    try:
        header = json.loads(file.read(length))
    except ValueError:
        return None
    return (length, header) if isinstance(header, Mapping) else None
