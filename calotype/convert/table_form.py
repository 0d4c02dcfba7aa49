"""`TableForm`: images as files beside one data file, copied byte for byte, linked, or left where they are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from calotype.convert.form import Form, Images, Record, Target

__all__ = ["TableForm", "read_files", "write_files"]


class TableForm(Form):
    """A data file with a line for each image, beside the images or referring to them."""

    images: tuple[Images, ...] = ("refer", "copy", "link")

    def column_names(self, images: Images, captions: int) -> tuple[str, tuple[str, ...]]:
        return ("image" if images == "refer" else "file_name"), ("text",)

    def write_part(self, target: Target, folder: Path, part: int, records: Iterator[Record]) -> None:
        write_files(target, folder, records)

    def files(self, target: Target, part: int, names: Sequence[str]) -> Iterable[str]:
        return () if target.images == "refer" else names

    def read_part(self, target: Target, folder: Path, part: int, names: Sequence[str]) -> Iterator[bytes]:
        return read_files(target, folder, names)


def write_files(target: Target, folder: Path, records: Iterator[Record]) -> None:
    """Write images into `folder` under their names.

    A link is a hard link; on another disk, a symbolic link relative to the final folder of the result.
    """
    made: set[Path] = set()
    for record in records:
        if target.images == "refer":
            continue
        file = folder / record.name
        if file.parent not in made:
            file.parent.mkdir(parents=True, exist_ok=True)
            made.add(file.parent)
        if record.data is None:
            _link(str(record.source.path), file, target.folder / record.name)
        else:
            file.write_bytes(record.data)


def read_files(target: Target, folder: Path, names: Sequence[str]) -> Iterator[bytes]:
    """Yield the bytes of copied files."""
    if target.images != "refer":
        for name in names:
            yield (folder / name).read_bytes()


def _link(source: str, file: Path, final: Path) -> None:
    file.unlink(missing_ok=True)
    try:
        os.link(source, file)
    except OSError:
        there = os.path.realpath(source)
        file.symlink_to(os.path.relpath(there, os.path.realpath(final.parent)))
