"""The format of a shard: a safetensors file that grows by whole puts. docs/store.md describes it for other programs.

    8 bytes            length of the header area
    header area        the JSON, then spaces, reserved for later puts
    data               groups without gaps, each aligned to 64 bytes

A *group* holds `count` records of one layout, stacked: one tensor (count, …) per field, then a table of uint8 (count,
16 + 8 * fields) with each record's key and checksums, then up to 63 bytes of padding:

    00017.picture.moments   BF16 (8, 32, 128, 128)
    00017.picture.keys      U8   (8, 24)
    00017.pad               U8   (…)

A put appends its groups to the data, then their JSON after the last `}`, and finally changes that `}` into a comma:
one byte, so that a put is atomic. Readers parse the first JSON object of the header.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calotype.encodings.store.layout import DTYPES, KEY_BYTES, Field, Layout, checksum, intern
from calotype.errors import NewerFormatError, StoreError

__all__ = [
    "ALIGN",
    "EMPTY",
    "FINISHED",
    "FORMAT",
    "OPEN",
    "Group",
    "Header",
    "ShardFile",
    "damaged_records",
    "describe",
    "list_shards",
    "not_finite_records",
    "pread_all",
    "read_header",
    "read_keys",
]

FORMAT: Final = 1
"""Version of the format: opening a store or shard of a higher version is an error."""
ALIGN: Final = 64
OPEN: Final = ".open.safetensors"
FINISHED: Final = ".safetensors"
_EXPONENTS: Final = {
    "BF16": ("<u2", 0x7F80),
    "F16": ("<u2", 0x7C00),
    "F32": ("<u4", 0x7F80_0000),
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
}
"""Exponent bits of each float dtype, as an integer of its width."""
_MARK: Final = "calotype.encodings"
EMPTY: Final = json.dumps({"__metadata__": {_MARK: str(FORMAT)}}, separators=(",", ":")).encode()
"""The JSON of a shard without groups."""
_LARGEST_HEADER: Final = 100_000_000
"""Maximum header length in safetensors."""
_AT_ONCE: Final = 64 << 20
"""Bytes read into memory at a time while verifying."""


@dataclass(frozen=True, slots=True)
class Group:
    """`count` records of one layout, stacked."""

    layout: Layout
    count: int
    offset: int
    """File offset of its first byte."""

    @property
    def table_offset(self) -> int:
        """File offset of the keys and checksums."""
        return self.offset + self.count * self.layout.nbytes

    @property
    def data_end(self) -> int:
        return self.table_offset + self.count * self.layout.table_width

    @property
    def end(self) -> int:
        """File offset after the padding."""
        return -(-self.data_end // ALIGN) * ALIGN


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A parsed shard header."""

    groups: list[Group]
    brace: int
    """File offset of the last `}`: the byte that the next put changes into a comma."""
    base: int
    """File offset of the data."""
    size: int
    """Size of the file when it was read."""

    @property
    def end(self) -> int:
        """File offset at which the data should end."""
        return self.groups[-1].end if self.groups else self.base


class ShardFile(NamedTuple):
    """A shard file in the store's folder."""

    path: Path
    size: int
    open: bool


def list_shards(folder: Path) -> dict[str, ShardFile]:
    """Return the shards in a folder: name without suffix → file."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(FINISHED) and not entry.name.startswith("."):
                ending = OPEN if entry.name.endswith(OPEN) else FINISHED
                try:
                    size = entry.stat().st_size
                except FileNotFoundError:  # finished or pruned since it was listed
                    continue
                found[entry.name.removesuffix(ending)] = ShardFile(Path(entry.path), size, ending == OPEN)
    return dict(sorted(found.items()))


def describe(number: int, group: Group, base: int) -> dict[str, Any]:
    """Return a group's header entries, for a shard whose data begins at file offset `base`."""
    prefix = f"{number:05d}.{group.layout.kind}."
    begin = group.offset - base
    entries = {}
    for name, dtype, shape, nbytes in (
        *((prefix + f.name, f.dtype_name, [group.count, *f.shape], f.nbytes) for f in group.layout.fields),
        (prefix + "keys", "U8", [group.count, group.layout.table_width], group.layout.table_width),
    ):
        end = begin + group.count * nbytes
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        begin = end
    if pad := group.end - group.data_end:
        entries[f"{number:05d}.pad"] = {"dtype": "U8", "shape": [pad], "data_offsets": [begin, begin + pad]}
    return entries


def pread_all(fd: int, size: int, offset: int) -> bytes:
    """Read `size` bytes at an offset; fewer only at the end of the file."""
    parts = []
    while size > 0 and (part := os.pread(fd, size, offset)):
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return b"".join(parts)


def read_header(fd: int, path: Path) -> Header:
    """Parse the header of a shard. The caller checks that the file is as long as the header claims.

    Raises:
        StoreError: It is not a shard, or its header is damaged.
        NewerFormatError: A newer calotype wrote it.
    """

    def damaged(what: str) -> StoreError:
        return StoreError(
            f"{path}: the header of this shard is damaged ({what}); 'calotype cache prune' sets it aside, and encoding "
            "again restores what was in it",
            shard=path.name,
        )

    size = os.fstat(fd).st_size
    length = int.from_bytes(pread_all(fd, 8, 0), "little")
    if not len(EMPTY) <= length <= min(_LARGEST_HEADER, size - 8):
        raise damaged(f"it says to be {length} bytes long in a file of {size}")
    try:
        text = pread_all(fd, length, 8).decode("ascii")
        document, end = json.JSONDecoder().raw_decode(text)
        version = int(document.pop("__metadata__")[_MARK])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged("it is not the JSON of a shard") from None
    if version > FORMAT:
        raise NewerFormatError(
            f"{path}: this shard has format {version}, and this calotype knows formats up to {FORMAT}: update calotype",
            shard=path.name,
        )
    try:
        groups = list(_groups(document, 8 + length))
    except (ValueError, KeyError, TypeError, StoreError) as error:
        raise damaged(f"of its tensors: {error}") from None
    # Writers write data before the header: a size that is read after the header covers all groups of the header.
    return Header(groups=groups, brace=8 + end - 1, base=8 + length, size=os.fstat(fd).st_size)


def _groups(document: dict[str, Any], base: int) -> Iterator[Group]:
    """Yield the groups of a header, each verified against what `describe` would write for it."""
    at = base
    entries = list(document.items())
    position = 0
    number = 0
    while position < len(entries):
        start = position
        fields: list[Field] = []
        while True:
            name, entry = entries[position]
            _, kind, field = name.split(".", 2)
            position += 1
            if field == "keys":
                break
            fields.append(Field(name=field, dtype=DTYPES[entry["dtype"]], shape=tuple(entry["shape"][1:])))
            if position == len(entries):
                raise ValueError(f"{name} has no keys behind it")
        if position < len(entries) and entries[position][0] == f"{number:05d}.pad":
            position += 1
        group = Group(intern(kind, tuple(fields)), int(entry["shape"][0]), at)
        if describe(number, group, base) != dict(entries[start:position]):
            raise ValueError(f"{entries[start][0]} is not where it should be")
        yield group
        at = group.end
        number += 1


def read_keys(fd: int, group: Group) -> NDArray[np.uint8]:
    """Read the keys (count, 16) of a complete group."""
    table = pread_all(fd, group.count * group.layout.table_width, group.table_offset)
    return np.frombuffer(table, np.uint8).reshape(group.count, group.layout.table_width)[:, :KEY_BYTES]


def not_finite_records(fd: int, group: Group) -> NDArray[np.bool_]:
    """Return a bool (count,): whether a record holds NaN or inf, as earlier versions stored them."""
    found = np.zeros(group.count, np.bool_)
    at = group.offset
    for field in group.layout.fields:
        if field.dtype_name in _EXPONENTS and field.nbytes:
            kind, exponent = _EXPONENTS[field.dtype_name]
            for slot in range(group.count):
                bits = np.frombuffer(pread_all(fd, field.nbytes, at + slot * field.nbytes), kind)
                found[slot] |= bool(((bits & exponent) == exponent).any())  # all ones: NaN or inf (IEEE 754)
        at += group.count * field.nbytes
    return found


def damaged_records(fd: int, group: Group) -> NDArray[np.bool_]:
    """Return a bool (count,): whether a record's bytes differ from what was written."""
    width = group.layout.table_width
    table = np.frombuffer(pread_all(fd, group.count * width, group.table_offset), np.uint8).reshape(-1, width)
    damaged = np.zeros(group.count, np.bool_)
    at = group.offset
    for number, field in enumerate(group.layout.fields):
        expected = np.ascontiguousarray(table[:, KEY_BYTES + 8 * number : KEY_BYTES + 8 * (number + 1)]).view("<u8")
        step = max(1, _AT_ONCE // max(1, field.nbytes))
        for start in range(0, group.count, step):
            stop = min(group.count, start + step)
            data = np.frombuffer(pread_all(fd, (stop - start) * field.nbytes, at + start * field.nbytes), np.uint8)
            for slot in range(start, stop):
                own = data[(slot - start) * field.nbytes : (slot - start + 1) * field.nbytes]
                found = checksum(table[slot, :KEY_BYTES].tobytes(), group.layout.seeds[number], own.data)
                damaged[slot] |= found != int(expected[slot, 0])
        at += group.count * field.nbytes
    return damaged
