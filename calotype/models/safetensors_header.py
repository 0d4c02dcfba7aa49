"""Read the header of a safetensors file: the names, shapes and offsets of its tensors. No tensor is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["HEADER_START", "header_of"]

HEADER_START: Final = 8
"""Bytes before the header: its length as a little-endian integer."""
_LONGEST: Final = 64 << 20
"""Maximum bytes of a header; those of the largest checkpoints have a few hundred kilobytes."""


def header_of(path: Path) -> tuple[int, Mapping[str, Any]] | None:
    """Read the header of a file.

    Returns:
        Its length in bytes and its contents; None if the file does not begin like a safetensors file.

    Raises:
        OSError: The file can't be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER_START), "little")
        if not 0 < length <= min(path.stat().st_size, _LONGEST):
            return None
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return None
    return (length, header) if isinstance(header, Mapping) else None
