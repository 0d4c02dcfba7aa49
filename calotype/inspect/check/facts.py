"""What is known of each picture: from its header and its end, and when asked from all of its pixels."""

from __future__ import annotations

from dataclasses import dataclass

from calotype.images.header import Header

__all__ = ["Facts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One picture."""

    header: Header | None
    """None when it can't be read; then `problem` says why."""
    problem: tuple[str, str] | None = None
    """(kind of finding, detail) of what keeps training from using it; None for a good picture."""
    content: bytes | None = None
    """xxh3-128 of the file's bytes; None where nobody needed it: no other picture has its length."""
    pixels: bytes | None = None
    """xxh3-128 of the decoded upright pixels and their shape; None without a deep look."""
    phash: int | None = None
    """64-bit perceptual hash (DCT) of the upright picture; None without a deep look."""
    notes: tuple[str, ...] = ()
    """`Decoded.notes`; empty without a deep look."""
