"""The index of a tar archive: the byte range of each member, and the contents of small text members."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from calotype.errors import ManifestError
from calotype.manifest.archives.lmdb_walk import MAX_TEXT
from calotype.manifest.archives.tar_headers import DamagedTarError, tar_headers
from calotype.manifest.cache import cached_rows
from calotype.manifest.file_kinds import CAPTION_SUFFIXES

__all__ = ["tar_index"]

_SCHEMA = pa.schema(
    [
        ("name", pa.large_string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("data", pa.large_binary()),
        ("kind", pa.large_string()),
    ]
)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


def tar_index(file: Path) -> pa.Table:
    """Return the members of an archive without its folders, from the cache or by reading all headers.

    The columns are `name`, `offset`, `size`, `data` (of texts up to 1 MiB) and `kind` (empty for a plain file, else its
    type). A hard link to an earlier member counts as a plain file; no other link is followed.

    Raises:
        ManifestError: The archive is compressed, damaged or incomplete.
    """
    if not file.is_file():
        raise ManifestError(f"{file}: there is no such archive")
    return cached_rows("archives", file, _SCHEMA, lambda: list(_members(file)), note="2")


def _members(file: Path) -> Iterator[tuple[str, int, int, bytes | None, str]]:
    ranges: dict[str, tuple[int, int]] = {}
    with file.open("rb") as opened, file.open("rb", buffering=0) as texts:
        head = opened.read(8)
        if not head:
            raise ManifestError(f"{file}: the file is empty; copy the archive again")
        if head.startswith(_COMPRESSED):
            raise ManifestError(
                f"{file}: the archive is compressed; unpack it to a plain .tar, so that images can be read by offset"
            )
        try:
            for member in tar_headers(opened):
                name = posixpath.normpath(member.name).encode("utf-8", "replace").decode("utf-8")
                offset, size, kind = member.offset, member.size, member.kind
                if kind == "a hard link" and member.target in ranges:
                    (offset, size), kind = ranges[member.target], ""
                data = None
                if name.lower().endswith(CAPTION_SUFFIXES) and size <= MAX_TEXT and not kind:
                    texts.seek(offset)
                    data = texts.read(size)
                if not kind:
                    ranges[member.name] = offset, size
                yield name, offset, size, data, kind
        except DamagedTarError as error:
            raise ManifestError(f"{file}: {error}") from None
