"""How many bits a channel a file stores, which Pillow's modes don't tell: it opens 16-bit colour as `RGB` too."""

from __future__ import annotations

from typing import Final

from PIL.ImageFile import ImageFile

__all__ = ["bits_of"]

_BITS_PER_SAMPLE: Final = 258
_PALETTE_MODES: Final = ("P", "PA")


def bits_of(image: ImageFile, head: bytes) -> int:
    """Bits a channel: 8 for most and for palettes, whose colours have 8; else 1, 2, 4, 10, 12, 16 or 32.

    Args:
        image: Opened, and not yet changed.
        head: The file's first bytes; 16 KiB are plenty.
    """
    if image.mode in _PALETTE_MODES:
        return 8
    if image.format == "PNG":
        return head[24]  # in IHDR, which always comes first
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))))  # type: ignore[attr-defined]
    if image.format == "AVIF":
        # AV1CodecConfigurationRecord: the third byte is tier, high_bitdepth, twelve_bit, … from the highest bit on.
        at = head.find(b"av1C") + 6
        flags = head[at] if 6 <= at < len(head) else 0
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    if image.format in ("HEIF", "HEIC"):
        return int(image.info.get("bit_depth", 8))
    return 1 if image.mode == "1" else 8
