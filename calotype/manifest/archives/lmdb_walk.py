"""A script that walks an LMDB environment: LMDB does not check its pages, and a damaged one crashes the process.

Run as `python lmdb_walk.py PACKAGES PATH`. It imports nothing of calotype, so that it starts fast. It writes a record
for each key to standard output; `read_records` parses them.
"""

from __future__ import annotations

import os
import struct
import sys

TYPE_CHECKING = False  # not `typing.TYPE_CHECKING`: importing typing takes longer than the rest of this script's start
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO, Final

MAX_TEXT: Final = 1 << 20
"""Maximum bytes of a text in any archive; a longer one is not read."""
_HEAD: Final = struct.Struct("<IiB")
"""Length of the key, of the text (-1: none), and whether the value is an image."""
_SMALLEST: Final = 8
"""Minimum bytes of an entry."""
_SIGNATURES: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")


def read_records(data: bytes) -> Iterator[tuple[bytes, bool, bytes | None]]:
    """Yield (key, whether the value looks like an image, the text if it is none)."""
    at = 0
    while at < len(data):
        key_length, length, image = _HEAD.unpack_from(data, at)
        start = at + _HEAD.size + key_length
        at = start + max(length, 0)
        yield data[start - key_length : start], bool(image), None if length < 0 else data[start:at]


def _walk(path: str, out: BinaryIO) -> str | None:
    """Write the records. Return the error; None without one."""
    import lmdb

    is_folder = os.path.isdir(path)  # noqa: PTH112 - pathlib takes long to import, too
    try:
        environment = lmdb.open(path, subdir=is_folder, readonly=True, lock=False, create=False, readahead=False)
    except lmdb.Error as error:
        return f"not an LMDB environment: {str(error).removeprefix(f'{path}: ')}"
    try:
        entries = environment.stat()["entries"]
        most = os.stat(f"{path}/data.mdb" if is_folder else path).st_size // _SMALLEST  # noqa: PTH116
        count = 0
        with environment.begin(buffers=True) as transaction:
            for key, value in transaction.cursor():
                count += 1
                if count > min(entries, most):  # the pages form a cycle
                    break
                image = _looks_like_image(bytes(value[:16]))
                bytes(value[-1:])  # reads the last page of the value: missing in a truncated file
                is_text = not image and len(value) <= MAX_TEXT
                out.write(_HEAD.pack(len(key), len(value) if is_text else -1, image) + bytes(key))
                if is_text:
                    out.write(value)
    except lmdb.Error as error:
        return f"damaged: {error}; copy it again"
    return None if count == entries else f"damaged: it has {entries:,} keys, and {count:,} are found; copy it again"


def _looks_like_image(head: bytes) -> bool:
    if head.startswith(_SIGNATURES):
        return True
    return (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:8] == b"ftyp"


if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    problem = _walk(sys.argv[2], sys.stdout.buffer)
    sys.stdout.buffer.flush()
    if problem is not None:
        sys.exit(problem)
