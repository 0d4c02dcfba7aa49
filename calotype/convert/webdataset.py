"""WebDataset: tar shards in which a picture, its caption and its JSON share a key."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from calotype.convert.form import MEMBER, Finding, Images, Record, Target
from calotype.convert.jsonl import json_value, odd_types, to_json
from calotype.convert.names import split_suffix, stem_names
from calotype.errors import ConvertError
from calotype.manifest.manifest import Manifest
from calotype.types import Row

__all__ = ["WebDataset", "description"]

_MAX_TEXT = 1 << 20
"""Readers of ours pass over longer texts in archives."""


class WebDataset:
    """`shard-000000.tar`, …: for each picture `key.jpg`, `key.txt` with its first caption, and `key.json` with all."""

    name = "webdataset"
    images: tuple[Images, ...] = ("embed",)
    shards = True
    table: str | None = None

    def column_names(self, images: Images, captions: int) -> tuple[str, tuple[str, ...]]:
        return MEMBER, ("text",)

    def names(self, rows: Iterable[Row], images: Images, folder: Path, title: str) -> Iterator[str]:
        return stem_names(rows)

    def caption(self, text: str) -> str:
        return text

    def column(self, name: str) -> str:
        return name

    def extra(self, value: Any) -> Any:
        return json_value(value)

    def findings(self, manifest: Manifest, names: Sequence[str], captions: int) -> Iterator[Finding]:
        return odd_types(manifest)

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
        pictures = set(names)
        with tarfile.open(folder / _part(part), "r:") as tar:
            for member in tar:
                if member.name in pictures:
                    file = tar.extractfile(member)
                    assert file is not None
                    yield file.read()

    def finish(self, target: Target, folder: Path, parts: int, records: Callable[[], Iterator[Record]]) -> None:
        pass

    def reading(self) -> Mapping[str, Any]:
        return {}


def description(target: Target, record: Record) -> bytes:
    """What the JSON beside a picture in an archive holds.

    Raises:
        ConvertError: More than a reader takes.
    """
    data = to_json(target.columns.values(record.row)).encode("utf-8")
    if len(data) > _MAX_TEXT:
        raise ConvertError(
            f"{record.row.id}: its captions and columns are {len(data):,} bytes of JSON, and archives are read with up "
            f"to {_MAX_TEXT:,} beside a picture; leave columns out, or choose another form"
        )
    return data


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(data))


def _part(part: int) -> str:
    return f"shard-{part:06d}.tar"
