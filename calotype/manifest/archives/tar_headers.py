"""The headers of a tar archive: ustar, GNU and pax, without a byte of the members' data.

`tarfile` ends quietly at a damaged header, and some damaged ones keep it busy for good.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

__all__ = ["DamagedTarError", "TarHeader", "tar_headers"]

_BLOCK: Final = 512
_MAX_META: Final = 1 << 20
"""Bytes of the longest pax header or long name."""
_FIELDS: Final = struct.Struct("100s 24x 12s 12x 8s 1s 100s 8s 80x 155s 12x")
_NO_DATA: Final = frozenset("123456")
"""Links, devices, folders and pipes: their size is not that of data that follows."""
_KINDS: Final = {
    "0": "", "\0": "", "7": "", "1": "a hard link", "2": "a symbolic link", "3": "a device", "4": "a device",
    "6": "a pipe", "S": "a sparse file",
}  # fmt: skip


class DamagedTarError(Exception):
    """Not a whole tar archive; the message says what is wrong, and where."""


class TarHeader(NamedTuple):
    """One member; folders are none."""

    name: str
    offset: int
    """Of its data."""
    size: int
    kind: str
    """What it is, for a message: empty for a plain file."""
    target: str
    """What a link leads to."""


def tar_headers(file: BinaryIO) -> Iterator[TarHeader]:
    """All members of an archive, and of those that were appended to it whole, as `cat a.tar b.tar` does.

    Raises:
        DamagedTarError: A header is damaged, a member is cut off, or there is no end-of-archive block.
    """
    total = file.seek(0, os.SEEK_END)
    place = 0
    extra: dict[str, str] = {}
    for_all: dict[str, str] = {}
    while True:
        file.seek(place)
        block = file.read(_BLOCK)
        if block.count(0) == len(block):
            if len(block) < _BLOCK:
                raise DamagedTarError(
                    f"cut off after byte {place}: it has no end-of-archive block, which every tar writer writes last; "
                    "copy the archive again, or see whether what wrote it was stopped"
                )
            place = _after_zeros(file, place, total)
            if place == total:
                return
            continue
        name, size, flag, target, is_ustar = _parse(block, place)
        start = place + _BLOCK
        if flag in "xXgLK":
            if size > _MAX_META or start + size > total:
                raise DamagedTarError(f"damaged at byte {place}: a header that is longer than it can be")
            data = file.read(size)
            if flag in "xX":
                extra |= _pax(data, place)
            elif flag == "g":
                for_all |= _pax(data, place)
            else:
                extra["path" if flag == "L" else "linkpath"] = _text(data)
            place = start + _blocks(size)
            continue
        known = for_all | extra
        extra = {}
        name = known.get("GNU.sparse.name", known.get("path", name))
        target = known.get("linkpath", target)
        if "size" in known:
            if not known["size"].isdecimal() or len(known["size"]) > 18:
                raise DamagedTarError(f"damaged at byte {place}: no valid size in a pax header; copy the archive again")
            size = int(known["size"])
        if flag == "S":
            start = _after_sparse_headers(file, block, start, place)
        place = start if flag in _NO_DATA else start + _blocks(size)
        if flag not in _NO_DATA and start + size > total:
            raise DamagedTarError(f"cut off in the middle of {name!r}; copy the archive again")
        sparse = any(each.startswith("GNU.sparse.") for each in known)
        if flag != "5" and not (flag == "\0" and not is_ustar and name.endswith("/")):
            kind = _KINDS["S"] if sparse else _KINDS.get(flag, f"a member of the unknown type {flag!a}")
            yield TarHeader(name, start, size, kind, target)


def _parse(block: bytes, place: int) -> tuple[str, int, str, str, bool]:
    """Name, size, type, target of a link, and whether the header is of ustar or GNU."""
    name, size, checksum, flag, target, magic, prefix = _FIELDS.unpack(block.ljust(_BLOCK, b"\0"))
    if len(block) < _BLOCK:
        raise DamagedTarError(f"cut off at byte {place}, in the middle of a header; copy the archive again")
    announced, summed = _number(checksum), sum(block) - sum(checksum) + 8 * ord(" ")
    # Some old writers summed signed bytes.
    if announced != summed and announced != summed - 256 * sum(byte > 127 for byte in block):
        if place == 0:
            raise DamagedTarError("not a tar archive: it does not begin with a tar header")
        raise DamagedTarError(f"damaged at byte {place}: no valid tar header; copy the archive again")
    whole = _text(name)
    if magic == b"ustar\00000" and prefix[0]:
        whole = f"{_text(prefix)}/{whole}"
    length = _number(size)
    if length is None:
        raise DamagedTarError(f"damaged at byte {place}: no valid size in a tar header; copy the archive again")
    return whole, length, flag.decode("latin-1"), _text(target), magic[:5] == b"ustar"


def _number(field: bytes) -> int | None:
    """Octal text, or GNU's binary form of large ones; None where it is neither."""
    try:
        number = int.from_bytes(field[1:]) if field[0] == 0x80 else int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return None
    return number if 0 <= number < 1 << 62 else None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes, place: int) -> dict[str, str]:
    """`length key=value` and a line break, again and again; the length is that of all of it."""
    found: dict[str, str] = {}
    while data.strip(b"\0"):
        length, _, _ = data.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 9 else 0
        key, equals, value = data[len(length) + 1 : end - 1].partition(b"=")
        if not equals or data[end - 1 : end] != b"\n":
            raise DamagedTarError(f"damaged at byte {place}: no valid pax header; copy the archive again")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[end:]
    return found


def _after_sparse_headers(file: BinaryIO, block: bytes, start: int, place: int) -> int:
    """Where the data of GNU's old form of sparse files begins."""
    more = block[482]
    while more:
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise DamagedTarError(f"cut off after byte {place}, in the header of a sparse file; copy the archive again")
        start, more = start + _BLOCK, block[504]
    return start


def _after_zeros(file: BinaryIO, place: int, total: int) -> int:
    """Where the blocks of zeros end that begin there: at another archive's header, or at the end."""
    file.seek(place)
    while chunk := file.read(1 << 20):
        if chunk.count(0) < len(chunk):
            return place + (len(chunk) - len(chunk.lstrip(b"\0"))) // _BLOCK * _BLOCK
        place += len(chunk)
    return total


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
