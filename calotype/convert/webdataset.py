"""`WebDataset`: tar shards in which an image, its caption and its JSON share a key."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from calotype.convert.archive_form import ArchiveForm, description
from calotype.convert.form import Images, Record, Target
from calotype.convert.names import split_suffix, stem_names
from calotype.types import Row

__all__ = ["WebDataset"]


class WebDataset(ArchiveForm):
    """`shard-000000.tar`, …: for each image `key.jpg`, `key.txt` with its first caption, and `key.json` with all."""

    name = "webdataset"
    shards = True

    def names(self, rows: Iterable[Row], images: Images, folder: Path, title: str) -> Iterator[str]:
        return stem_names(rows)

    def write_part(self, target: Target, folder: Path, part: int, records: Iterator[Record]) -> None:
        with tarfile.open(folder / _part(part), "w", format=tarfile.PAX_FORMAT) as tar:
            for record in records:
                assert record.data is not None
                key = split_suffix(record.name)[0]
                first = record.row.captions[0] if record.row.captions else ""
                _add(tar, record.name, record.data)
                _add(tar, f"{key}.txt", first.encode("utf-8"))
                _add(tar, f"{key}.json", description(target, record))

    def files(self, target: Target, part: int, names: Sequence[str]) -> Iterable[str]:
        return (_part(part),)

    def read_part(self, target: Target, folder: Path, part: int, names: Sequence[str]) -> Iterator[bytes]:
        images = set(names)
        with tarfile.open(folder / _part(part), "r:") as tar:
            for member in tar:
                if member.name in images:
                    file = tar.extractfile(member)
                    assert file is not None
                    yield file.read()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(data))


def _part(part: int) -> str:
    return f"shard-{part:06d}.tar"
