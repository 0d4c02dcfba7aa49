"""Fingerprints of images: equal bytes have equal fingerprints, and computing one reads at most 48 KiB."""

from __future__ import annotations

import os

import xxhash

from calotype.core.small_files import require_regular

__all__ = ["of_bytes", "of_file"]

_WINDOW = 16 << 10


def of_file(path: str, offset: int = 0, size: int | None = None) -> bytes:
    """Return the fingerprint (16 bytes) of a file or of a part of it.

    Args:
        path: The file.
        offset: First byte of the part.
        size: Bytes of the part. Default: up to the end of the file.

    Raises:
        OSError: The file can't be read.
    """
    # Non-blocking: a pipe with the name of an image must not hang the reader.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        require_regular(path)
        size = os.fstat(handle).st_size if size is None else size
        return _hash(size, [os.pread(handle, length, offset + at) for at, length in _windows(size)])
    finally:
        os.close(handle)


def of_bytes(data: bytes | memoryview) -> bytes:
    """Return the fingerprint (16 bytes) of bytes in memory."""
    return _hash(len(data), [bytes(data[at : at + length]) for at, length in _windows(len(data))])


def _windows(size: int) -> list[tuple[int, int]]:
    """Return (start, length) of what is read of `size` bytes: all, or the first, the middle and the last 16 KiB."""
    if size <= 3 * _WINDOW:
        return [(0, size)]
    return [(0, _WINDOW), ((size - _WINDOW) // 2, _WINDOW), (size - _WINDOW, _WINDOW)]


def _hash(size: int, windows: list[bytes]) -> bytes:
    return xxhash.xxh3_128_digest(size.to_bytes(8, "little") + b"".join(windows))
