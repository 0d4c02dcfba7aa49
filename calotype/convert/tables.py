"""What the forms share whose pictures are files beside one data file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from calotype.convert.files import read_files, write_files
from calotype.convert.form import Finding, Images, Record, Target
from calotype.convert.names import file_names, reference
from calotype.errors import ConfigError
from calotype.manifest.manifest import Manifest
from calotype.types import Row

__all__ = ["TableForm", "references"]


class TableForm:
    """A data file with a line a picture, beside the pictures or leading to them."""

    name: str
    images: tuple[Images, ...] = ("refer", "copy", "link")
    shards = False
    table: str | None

    def column_names(self, images: Images, captions: int) -> tuple[str, tuple[str, ...]]:
        return ("image" if images == "refer" else "file_name"), ("text",)

    def names(self, rows: Iterable[Row], images: Images, folder: Path, title: str) -> Iterator[str]:
        return references(rows, folder) if images == "refer" else file_names(rows)

    def caption(self, text: str) -> str:
        return text

    def column(self, name: str) -> str:
        return name

    def extra(self, value: Any) -> Any:
        return value

    def findings(self, manifest: Manifest, names: Sequence[str], captions: int) -> Iterator[Finding]:
        return iter(())

    def write_part(self, target: Target, folder: Path, part: int, records: Iterator[Record]) -> None:
        write_files(target, folder, records)

    def files(self, target: Target, part: int, names: Sequence[str]) -> Iterable[str]:
        return () if target.images == "refer" else names

    def read_part(self, target: Target, folder: Path, part: int, names: Sequence[str]) -> Iterator[bytes]:
        return read_files(target, folder, names)

    def finish(self, target: Target, folder: Path, parts: int, records: Callable[[], Iterator[Record]]) -> None:
        raise NotImplementedError

    def reading(self) -> Mapping[str, Any]:
        return {}


def references(rows: Iterable[Row], folder: Path) -> Iterator[str]:
    """What a data file in `folder` calls the pictures.

    Raises:
        ConfigError: A picture lies where no reference can lead.
    """
    for row in rows:
        found = reference(row.image, folder)
        if found is None:
            raise ConfigError(
                f"images: 'refer' can't lead to {row.image.name}, at {row.image.path}; choose 'copy' or 'embed'"
            )
        yield found
