"""What the forms share whose images are files beside one data file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from calotype.convert.files import read_files, write_files
from calotype.convert.form import Form, Images, Record, Target

__all__ = ["TableForm"]


class TableForm(Form):
    """A data file with a line an image, beside the images or leading to them."""

    images: tuple[Images, ...] = ("refer", "copy", "link")

    def column_names(self, images: Images, captions: int) -> tuple[str, tuple[str, ...]]:
        return ("image" if images == "refer" else "file_name"), ("text",)

    def write_part(self, target: Target, folder: Path, part: int, records: Iterator[Record]) -> None:
        write_files(target, folder, records)

    def files(self, target: Target, part: int, names: Sequence[str]) -> Iterable[str]:
        return () if target.images == "refer" else names

    def read_part(self, target: Target, folder: Path, part: int, names: Sequence[str]) -> Iterator[bytes]:
        return read_files(target, folder, names)
