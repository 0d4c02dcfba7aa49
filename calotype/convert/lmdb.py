"""`Lmdb`: one LMDB environment, an image and its JSON under numbered keys."""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from calotype.convert.archive_form import ArchiveForm, description
from calotype.convert.form import Images, Record, Target
from calotype.convert.names import split_suffix, wish
from calotype.errors import MissingDependencyError
from calotype.types import Row

__all__ = ["Lmdb"]

_MAP_BYTES = 1 << 30
"""Initial map size in bytes, doubled when full. The file only grows with its content."""


class Lmdb(ArchiveForm):
    """`000000012.jpg` → the file, `000000012.json` → captions, id and columns; keys sort in the rows' order."""

    name = "lmdb"

    def names(self, rows: Iterable[Row], images: Images, folder: Path, title: str) -> Iterator[str]:
        for number, row in enumerate(rows):
            suffix = split_suffix(posixpath.basename(wish(row.image)))[1]
            yield f"{number:09d}{suffix}"

    def write_part(self, target: Target, folder: Path, part: int, records: Iterator[Record]) -> None:
        items: list[tuple[bytes, bytes]] = []
        for record in records:
            assert record.data is not None
            key = split_suffix(record.name)[0]
            items.append((record.name.encode("utf-8"), record.data))
            items.append((f"{key}.json".encode(), description(target, record)))
        lmdb = _lmdb()
        size = _MAP_BYTES
        try:
            while not self._put(lmdb, folder, items, size):
                size = 2 * max(size, _size(folder))
        except lmdb.Error as error:
            raise OSError(errno.EIO, str(error), str(folder)) from error

    def _put(self, lmdb: Any, folder: Path, items: Sequence[tuple[bytes, bytes]], size: int) -> bool:
        """Write all items in one transaction; return whether the map was large enough."""
        # `lock=False`: no other process uses this folder, and the result should not contain a lock file.
        with lmdb.open(str(folder), map_size=max(size, _size(folder)), lock=False) as environment:
            try:
                with environment.begin(write=True) as transaction:
                    for name, data in items:
                        transaction.put(name, data)
            except lmdb.MapFullError:
                return False
        return True

    def files(self, target: Target, part: int, names: Sequence[str]) -> Iterable[str]:
        return ("data.mdb",)

    def read_part(self, target: Target, folder: Path, part: int, names: Sequence[str]) -> Iterator[bytes]:
        with _lmdb().open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
            for name in names:
                yield transaction.get(name.encode("utf-8")) or b""


def _size(folder: Path) -> int:
    data = folder / "data.mdb"
    return data.stat().st_size if data.exists() else 0


def _lmdb() -> Any:
    try:
        import lmdb
    except ImportError:
        raise MissingDependencyError("lmdb", extra="lmdb", purpose="to write LMDB") from None
    return lmdb
