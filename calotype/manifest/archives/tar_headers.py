"""Reads the headers of a tar archive (ustar, GNU and pax) without the members' data.

`tarfile` stops silently at a damaged header, and some damaged headers make it loop without end.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

__all__ = ["DamagedTarError", "TarHeader", "tar_headers"]

_BLOCK: Final = 512
_MAX_META: Final = 1 << 20
"""Maximum bytes of a pax header or long name."""
_FIELDS: Final = struct.Struct("100s 24x 12s 12x 8s 1s 100s 8s 80x 155s 12x")
_NO_DATA: Final = frozenset("123456")
"""Types without data: links, devices, folders and pipes. Their size field is ignored."""
_KINDS: Final = {
    "0": "", "\0": "", "7": "", "1": "a hard link", "2": "a symbolic link", "3": "a device", "4": "a device",
    "6": "a pipe", "S": "a sparse file",
}  # fmt: skip


class DamagedTarError(Exception):
    """The tar archive is damaged or incomplete; the message has the reason and the byte."""


class TarHeader(NamedTuple):
    """A member that is not a folder."""

    name: str
    offset: int
    """Byte at which its data begins."""
    size: int
    kind: str
    """Type of the member, for messages; empty for a plain file."""
    target: str
    """Target of a link."""


def tar_headers(file: BinaryIO) -> Iterator[TarHeader]:
    """Yield the members of an archive without its folders, also of archives appended to it (`cat a.tar b.tar`).

    Raises:
        DamagedTarError: A header is damaged, a member is cut off, or there is no end-of-archive block.
    """
    total = file.seek(0, os.SEEK_END)
    at = 0
    extra: dict[str, str] = {}
    for_all: dict[str, str] = {}
    while True:
        # The end of the archive: zeros, then its end or another archive.
        file.seek(at)
        block = file.read(_BLOCK)
        if block.count(0) == len(block):
            if len(block) < _BLOCK:
                raise DamagedTarError(
                    f"cut off after byte {at}: it has no end-of-archive block, which every tar writer writes last; "
                    "copy the archive again, or check that the program that wrote it was not stopped"
                )
            at = _after_zeros(file, at, total)
            if at == total:
                return
            continue
        name, size, flag, target, is_ustar = _parse(block, at)
        start = at + _BLOCK
        # Headers that describe the next member (pax, GNU long names) or all further ones.
        if flag in "xXgLK":
            if size > _MAX_META or start + size > total:
                raise DamagedTarError(f"damaged at byte {at}: a header that is longer than it can be")
            data = file.read(size)
            if flag in "xX":
                extra |= _pax(data, at)
            elif flag == "g":
                for_all |= _pax(data, at)
            else:
                extra["path" if flag == "L" else "linkpath"] = _text(data)
            at = start + _blocks(size)
            continue
        # A member, with the values of these headers.
        known = for_all | extra
        extra = {}
        name = known.get("GNU.sparse.name", known.get("path", name))
        target = known.get("linkpath", target)
        if "size" in known:
            if not known["size"].isdecimal() or len(known["size"]) > 18:
                raise DamagedTarError(f"damaged at byte {at}: no valid size in a pax header; copy the archive again")
            size = int(known["size"])
        if flag == "S":
            start = _after_sparse_headers(file, block, start, at)
        at = start if flag in _NO_DATA else start + _blocks(size)
        if flag not in _NO_DATA and start + size > total:
            raise DamagedTarError(f"cut off in the middle of {name!r}; copy the archive again")
        sparse = any(each.startswith("GNU.sparse.") for each in known)
        if flag != "5" and not (flag == "\0" and not is_ustar and name.endswith("/")):
            kind = _KINDS["S"] if sparse else _KINDS.get(flag, f"a member of the unknown type {flag!a}")
            yield TarHeader(name, start, size, kind, target)


def _parse(block: bytes, at: int) -> tuple[str, int, str, str, bool]:
    """Return name, size, type, target of a link, and whether the header is ustar's or GNU's."""
    name, size, checksum, flag, target, magic, prefix = _FIELDS.unpack(block.ljust(_BLOCK, b"\0"))
    if len(block) < _BLOCK:
        raise DamagedTarError(f"cut off at byte {at}, in the middle of a header; copy the archive again")
    stored, summed = _number(checksum), sum(block) - sum(checksum) + 8 * ord(" ")
    # Some old programs sum signed bytes.
    if stored != summed and stored != summed - 256 * sum(byte > 127 for byte in block):
        if at == 0:
            raise DamagedTarError("not a tar archive: it does not begin with a tar header")
        raise DamagedTarError(f"damaged at byte {at}: no valid tar header; copy the archive again")
    whole = _text(name)
    if magic == b"ustar\00000" and prefix[0]:
        whole = f"{_text(prefix)}/{whole}"
    length = _number(size)
    if length is None:
        raise DamagedTarError(f"damaged at byte {at}: no valid size in a tar header; copy the archive again")
    return whole, length, flag.decode("latin-1"), _text(target), magic[:5] == b"ustar"


def _number(field: bytes) -> int | None:
    """Parse octal text, or GNU's binary form of large numbers; None: it is neither."""
    try:
        number = int.from_bytes(field[1:]) if field[0] == 0x80 else int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return None
    return number if 0 <= number < 1 << 62 else None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes, at: int) -> dict[str, str]:
    """Parse pax records: `length key=value` and a line feed, the length being that of the whole record."""
    found: dict[str, str] = {}
    while data.strip(b"\0"):
        length, _, _ = data.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 9 else 0
        key, equals, value = data[len(length) + 1 : end - 1].partition(b"=")
        if not equals or data[end - 1 : end] != b"\n":
            raise DamagedTarError(f"damaged at byte {at}: no valid pax header; copy the archive again")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[end:]
    return found


def _after_sparse_headers(file: BinaryIO, block: bytes, start: int, at: int) -> int:
    """Return the byte at which the data of a sparse file in GNU's old format begins."""
    more = block[482]
    while more:
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise DamagedTarError(f"cut off after byte {at}, in the header of a sparse file; copy the archive again")
        start, more = start + _BLOCK, block[504]
    return start


def _after_zeros(file: BinaryIO, at: int, total: int) -> int:
    """Return the byte at which the blocks of zeros from `at` on end: an appended archive's header, or the end."""
    file.seek(at)
    while chunk := file.read(1 << 20):
        if chunk.count(0) < len(chunk):
            return at + (len(chunk) - len(chunk.lstrip(b"\0"))) // _BLOCK * _BLOCK
        at += len(chunk)
    return total


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
