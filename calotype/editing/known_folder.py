"""`KnownFolder`: the files of a folder of images, listed again only if another program has added or removed one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from calotype.editing.sidecars import Sidecars
from calotype.manifest.file_kinds import METADATA
from calotype.manifest.folders.kohya import kohya_folders
from calotype.manifest.folders.listing import Listing, list_folder
from calotype.manifest.names_on_disk import NamesOnDisk
from calotype.manifest.reading import Reading

__all__ = ["KnownFolder"]

_MAX_NEW: Final = 1000
"""Above this number of new files, listing the folder again is faster than matching them one by one."""


class KnownFolder:
    """A folder's files, as they were listed last.

    Args:
        folder: The folder.
        reading: The options with which the manifest reads it.
    """

    listing: Listing
    sidecars: Sidecars
    images: frozenset[str]
    on_disk: NamesOnDisk
    kohya: Mapping[str, tuple[float, str]]
    """See `kohya_folders`."""
    in_files: bool
    """Whether any image has a caption file."""
    changes: int = 0
    """How often the above has changed."""

    def __init__(self, folder: Path, reading: Reading) -> None:
        self.path, self._reading = folder, reading
        self.list()

    def list(self) -> None:
        """List the folder.

        Raises:
            ManifestError: It can't be read.
        """
        self.changes += 1
        reading = self._reading
        self._names: dict[str, set[str]] = {}
        self.listing = list_folder(
            self.path,
            reading.recursive,
            lambda where, what: None,
            reading.caption_suffixes,
            reading.exclude,
            names=self._names,
        )
        self.sidecars = Sidecars(self.path, self.listing, reading)
        self.images = frozenset(self.listing.images)
        self.on_disk = NamesOnDisk(self.images)
        self.kohya = kohya_folders(self.listing, reading)
        self.in_files = bool(self.listing.captions) or any(map(self.sidecars.of, self.listing.images))

    def refresh(self) -> None:
        """List the folder again if its names are others than before. Raises as `list` does."""
        for inside, names in self._names.items():
            try:
                found = {name for name in os.listdir(f"{self.path}/{inside}") if name[0] != "."}  # noqa: PTH208
            except OSError:
                found = set()
            if found != names and not (names <= found and self._add(inside, found - names)):
                self.list()
                return

    def wrote(self, files: Iterable[Path]) -> None:
        """Add files that were written here, without listing the folder."""
        by_folder: dict[str, set[str]] = {}
        for file in files:
            inside = f"{file.parent.relative_to(self.path)}/".removeprefix("./")
            if file.name not in self._names.get(inside, ()):
                by_folder.setdefault(inside, set()).add(file.name)
        if not all(self._add(inside, new) for inside, new in by_folder.items()):
            self.list()

    def _add(self, inside: str, new: set[str]) -> bool:
        """Add new names of a folder; False: they may change more than the captions of one image each."""
        known = self._names.get(inside)
        if known is None or len(new) > _MAX_NEW:
            return False
        for name in new:
            if name.lower() in METADATA:
                self.listing.data.append(inside + name)
                self.listing.data.sort()
            elif self.sidecars.add(inside + name):
                self.in_files = True
            else:
                return False
            known.add(name)
            self.changes += 1
        return True
