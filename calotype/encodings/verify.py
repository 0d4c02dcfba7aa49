"""Every byte of a store held against its checksums."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calotype.encodings.layout import KEY_BYTES, checksum
from calotype.encodings.shard import Group, pread_all

__all__ = ["damaged_records"]

_AT_ONCE = 64 << 20


def damaged_records(fd: int, group: Group) -> NDArray[np.bool_]:
    """(count,): whether the bytes of a record are not what was written."""
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
                found = checksum(table[slot, :KEY_BYTES].tobytes(), group.layout.seeds[number], own)
                damaged[slot] |= found != int(expected[slot, 0])
        at += group.count * field.nbytes
    return damaged
