"""`sniff`: the format of an image from its first bytes, or an error that names what they are instead."""

from __future__ import annotations

from typing import Final

__all__ = ["FORMATS", "HEAD", "NotAnImageError", "sniff"]

HEAD: Final = 512
"""Bytes that `sniff` needs."""

FORMATS: Final = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "HEIF")

_MAGIC: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
_AVIF_BRANDS: Final = frozenset((b"avif", b"avis"))
_HEIF_BRANDS: Final = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_OTHERS: Final = (
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop document"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with 'git lfs pull'"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
)


class NotAnImageError(ValueError):
    """The bytes have no supported format; the message names what they are instead, if known."""

    def __init__(self, reason: str, kind: str = "not_an_image") -> None:
        super().__init__(reason)
        self.kind = kind
        """As `ImageError.kind`."""


def sniff(head: bytes) -> str:
    """Return the format of a file from its first `HEAD` bytes, one of `FORMATS`.

    Raises:
        NotAnImageError: It has none of them.
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        length = min(int.from_bytes(head[:4]), len(head))
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, length, 4))}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        if brands & _HEIF_BRANDS:
            return "HEIF"
    if not head:
        raise NotAnImageError("the file is empty (0 bytes)", "empty_file")
    if not head.strip(b"\x00"):
        reason = "the file has only zero bytes: an interrupted download or a sparse file"
        raise NotAnImageError(reason, "damaged")
    raise NotAnImageError(_what_instead(head))


def _what_instead(head: bytes) -> str:
    for magic, what in _OTHERS:
        if head.startswith(magic):
            return f"this is {what}, not a supported image ({', '.join(FORMATS)})"
    if head[4:8] == b"ftyp":
        return f"this is a video or another ISO media file (brand {head[8:12].decode('ascii', 'replace')!r})"
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # `head` may end inside a character.
        text = head[: error.start].decode("utf-8-sig") if error.start >= len(head) - 3 else ""
    text = " ".join(text.split())
    start = text[:60] + ("…" if len(text) > 60 else "")
    low = text.lower()
    if "<svg" in low:
        return "this is an SVG drawing, not an image of pixels: convert it to PNG first"
    if low.startswith(("<!doctype html", "<html", "<head", "<body")) or "<html" in low:
        return f"this is an HTML page, not an image: {start!r}"
    if text and text.isprintable():
        return f"this is text, not an image: {start!r}"
    return f"not a supported image ({', '.join(FORMATS)}); it begins with {head[:12].hex(' ')}"
