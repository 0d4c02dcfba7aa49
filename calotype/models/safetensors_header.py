"""The header of a safetensors file, which names its tensors and where they are. No tensor is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["HEADER_START", "header_of"]

HEADER_START: Final = 8
"""Bytes before the header: its length, little-endian."""
_LONGEST: Final = 64 << 20
"""Bytes of a header; that of the largest checkpoints has a few hundred kilobytes."""


def header_of(path: Path) -> tuple[int, Mapping[str, Any]] | None:
    """Read the header of a file.

    Returns:
        Its length in bytes and its contents; None where the file does not begin as a safetensors file.

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
