"""The index of a tar archive: which member lies at which bytes, and the texts of the small ones."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from calotype.errors import ManifestError
from calotype.manifest.cache import cached_table

__all__ = ["tar_index"]

_SCHEMA = pa.schema(
    [
        ("name", pa.large_string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("data", pa.large_binary()),
    ]
)
_TEXTS = (".txt", ".caption", ".json")
_MAX_TEXT = 1 << 20
_BLOCK = 512


def tar_index(file: Path) -> pa.Table:
    """Columns `name`, `offset`, `size` and, for texts of up to 1 MiB, `data`. Made once, kept in the cache.

    Links and devices are not listed, so nothing of the archive is ever followed to another place.

    Raises:
        ManifestError: Not a whole, uncompressed tar archive.
    """
    if not file.is_file():
        raise ManifestError(f"{file}: there is no such archive")
    return cached_table("archives", [file], lambda: (_SCHEMA, [_scan(file)]))


def _scan(file: Path) -> pa.RecordBatch:
    members = list(_members(file))
    columns = list(zip(*members, strict=True)) or [(), (), (), ()]
    return pa.record_batch(
        [pa.array(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA
    )


def _members(file: Path) -> Iterator[tuple[str, int, int, bytes | None]]:
    total = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(6)
        if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head == b"\xfd7zXZ\x00":
            raise ManifestError(
                f"{file}: the archive is compressed; unpack it to a plain .tar, so that pictures can be read by offset"
            )
        try:
            with tarfile.open(file, mode="r:", errors="surrogateescape") as tar:
                for member in tar:
                    if not member.isreg() or member.issparse():
                        continue
                    end = member.offset_data + member.size
                    if end > total:
                        raise ManifestError(f"{file}: cut off in the middle of {member.name!r}; copy the archive again")
                    name = posixpath.normpath(member.name)
                    data = None
                    if name.lower().endswith(_TEXTS) and member.size <= _MAX_TEXT:
                        opened.seek(member.offset_data)
                        data = opened.read(member.size)
                    yield name.encode("utf-8", "replace").decode("utf-8"), member.offset_data, member.size, data
                end = tar.offset
        except tarfile.TarError as error:
            raise ManifestError(f"{file}: not a whole tar archive: {error}") from None
        # tarfile ends quietly at a damaged header; what follows the last member must be zeros, or nothing.
        opened.seek(end)
        rest = opened.read(_BLOCK)
        if rest.strip(b"\0"):
            raise ManifestError(f"{file}: damaged at byte {end}: no valid tar header; copy the archive again")
