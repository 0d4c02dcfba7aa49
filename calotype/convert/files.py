"""Images as files: copied byte for byte, linked, or left where they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from calotype.convert.form import Record, Target

__all__ = ["read_files", "write_files"]


def write_files(target: Target, folder: Path, records: Iterator[Record]) -> None:
    """Puts images into `folder` under their names.

    A link is a hard link; where that can't be (another disk), a symbolic one by a path relative to where the result
    will lie.
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
    """The bytes of these files, which were copied."""
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
