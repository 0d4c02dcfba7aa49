"""What lies in a folder: images, caption files and data files, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from calotype.errors import ManifestError
from calotype.manifest.reading import CAPTION_SUFFIXES, IMAGE_SUFFIXES

__all__ = ["DATA_SUFFIXES", "METADATA", "Listing", "list_folder", "stem_of", "walk_folder"]

DATA_SUFFIXES = frozenset(".json .jsonl .ndjson .csv .tsv .parquet .arrow .feather .tar .tgz .mdb".split())  # noqa: SIM905
_SYSTEM = frozenset({"__macosx", "thumbs.db", "desktop.ini", "lock.mdb", "@eadir", "$recycle.bin"})
METADATA = frozenset({"metadata.jsonl", "metadata.csv", "metadata.parquet"})
"""Names of Hugging Face's metadata files, in lower case."""


@dataclass(slots=True, kw_only=True)
class Listing:
    """What lies in a folder, as posix paths relative to it, each list sorted."""

    images: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Files of other kinds."""
    other_splits: list[str] = field(default_factory=list)
    """Images that belong to another split than the one to be read."""


def list_folder(
    folder: Path,
    recursive: bool,
    on_odd_name: Callable[[str, str], None],
    caption_suffixes: Sequence[str] = CAPTION_SUFFIXES,
) -> Listing:
    """Looks through a folder once. Hidden and system files are passed over; a loop of links is walked once."""
    texts = tuple(suffix for suffix in caption_suffixes if suffix not in DATA_SUFFIXES)
    found = Listing()
    try:
        names_found = list(walk_folder(folder, recursive))
    except PermissionError as error:
        raise ManifestError(f"{error.filename}: the folder can't be read: {error.strerror}") from None
    for name in names_found:
        suffix = name[len(stem_of(name)) :].lower()
        if suffix in IMAGE_SUFFIXES:
            names = found.images
        elif suffix in texts or name.lower().endswith(texts):
            names = found.captions
        elif suffix in DATA_SUFFIXES:
            names = found.data
        else:
            names = found.others
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            if names is found.others:
                continue
            on_odd_name(f"{folder}/{name!a}", "the file's name is not UTF-8; rename it")
            continue
        names.append(name)
    for names in (found.images, found.captions, found.data, found.others):
        names.sort()
    return found


def stem_of(name: str) -> str:
    """The name without its suffix."""
    return os.path.splitext(name)[0]  # noqa: PTH122 - a Path for each of 100,000 names costs a second


def walk_folder(folder: Path, recursive: bool) -> Iterator[str]:
    """All files in a folder, relative to it, but hidden and system ones."""
    seen: set[tuple[int, int]] = set()
    stack = [""]
    while stack:
        inside = stack.pop()
        place = f"{folder}/{inside}"
        stat = Path(place).stat()
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        below = []
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
                    continue
                if entry.is_dir():
                    below.append(f"{inside}{entry.name}/")
                elif entry.is_file() or entry.is_symlink():  # a broken link is for the reader to name
                    yield inside + entry.name
        if recursive:
            stack.extend(sorted(below, reverse=True))
