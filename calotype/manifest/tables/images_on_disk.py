"""Finds the image of a reference whose file has another name or path on disk than in the data."""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from calotype.manifest.file_kinds import IMAGE_SUFFIXES
from calotype.manifest.names_on_disk import NamesOnDisk
from calotype.manifest.tables.archive_references import ARCHIVED

__all__ = ["find_images"]

_PROBES: Final = 256
"""Number of references of each kind to check first. The others are checked if some of these can be replaced."""
_ARCHIVED: Final = re.compile(ARCHIVED)
_MAX_DEPTH: Final = 2
_MAX_FOLDERS: Final = 1000
"""Maximum depth, and number of folders, of the search for an image by its name."""


def find_images(
    refs: Any,
    local: npt.NDArray[np.bool_],
    odd: npt.NDArray[np.bool_],
    *,
    base: Path,
    root: Path,
    label: str,
    note: Callable[[str], None],
    problems: dict[int, str],
) -> Any:
    """Replace references to missing files by the one image that each can mean.

    That is the file whose name differs in Unicode form, case or percent-encoding only; the one image with this name and
    a suffix; and, for a path of another machine or a bare name, the one image under `base` that shares the longest end
    of the path. Two references never become one image.

    Args:
        refs: (N,) large_string array of normalized references.
        local: bool (N,): whether each is a path.
        odd: bool (N,): whether each is not of the form `some/folder/a.jpg`.
        base: Folder that the data's references are relative to.
        root: Folder that `refs` are relative to.
        label: The data file, for messages.
        note: Called with sentences for `Manifest.describe`.
        problems: Row → reason; ambiguous references are added.
    """
    # Check a sample of the references first: most datasets have no missing files.
    disk = _Disk(base, root)
    missing = [ref for ref in _probes(refs, local, odd) if not (os.path.lexists(root / ref) or _ARCHIVED.search(ref))]
    if not missing:
        return refs
    if not any(match.found or match.several for match in map(disk.find, missing)):
        _note_unfound(missing, label, base, note)
        return refs
    # Then look up all of them.
    texts = refs.to_pylist()
    written = list(dict.fromkeys(texts[row] for row in np.flatnonzero(local)))
    owners = {ref: ref for ref in written if disk.has(ref)}
    found: dict[str, str] = {}
    several: dict[str, str] = {}
    for ref in written:
        if ref in owners or _ARCHIVED.search(ref):
            continue
        match = disk.find(ref)
        if match.several:
            several[ref] = f"{_short(ref)} can mean {' or '.join(match.several[:3])}; write out which"
        elif match.found is not None and owners.setdefault(match.found, ref) == ref:
            found[ref] = match.found
    for row in np.flatnonzero(local) if several else ():
        if texts[row] in several:
            problems.setdefault(int(row), several[texts[row]])
    if not found:
        return refs
    first = next(iter(found))
    one = f"1 reference leads to no file as it is written, {_short(first)}: it is read as"
    many = f"{len(found):,} references lead to no file as they are written: {_short(first)} is read as"
    note(f"{label}: {one if len(found) == 1 else many} {_short(found[first])}, the one image that it can mean")
    return pa.array([found.get(text, text) for text in texts], pa.large_string())


def _note_unfound(missing: list[str], label: str, base: Path, note: Callable[[str], None]) -> None:
    foreign = [ref for ref in missing if _is_foreign(ref)]
    if foreign:
        note(
            f"{label}: {_short(foreign[0])} is a path of another machine, and no image of that name is under {base}; "
            "root= sets the folder that holds the images"
        )


def _short(ref: str) -> str:
    return repr(ref if len(ref) <= 80 else f"{ref[:40]}…{ref[-39:]}")


def _is_foreign(ref: str) -> bool:
    """Whether it is an absolute path, also of Windows, whose folder does not exist here."""
    if ref.startswith("/"):
        return not os.path.isdir(posixpath.dirname(ref))  # noqa: PTH112 - a name that is too long is none
    return ref[1:3] == ":/"


def _probes(refs: Any, local: npt.NDArray[np.bool_], odd: npt.NDArray[np.bool_]) -> list[str]:
    """Return some references of each kind: any, odd ones, and those that are not ASCII."""
    kinds = [local, local & odd]
    if pc.sum(pc.binary_length(refs)).as_py() != pc.sum(pc.utf8_length(refs)).as_py():
        wide = pc.not_equal(pc.cast(pc.binary_length(refs), pa.int64()), pc.cast(pc.utf8_length(refs), pa.int64()))
        kinds.append(local & np.asarray(wide))
    rows: set[int] = set()
    for kind in kinds:
        where = np.flatnonzero(kind)
        if len(where):
            rows.update(where[np.linspace(0, len(where) - 1, min(len(where), _PROBES)).astype(np.int64)].tolist())
    return [refs[row].as_py() for row in sorted(rows)]


@dataclass(frozen=True, slots=True)
class _Match:
    found: str | None = None
    """The image, as a reference."""
    several: tuple[str, ...] = ()
    """Images that are equally good matches."""


class _Folder:
    """The names in one folder, and its images by their stems."""

    def __init__(self, path: Path) -> None:
        try:
            names = frozenset(os.listdir(path))  # noqa: PTH208 - names are enough
        except (OSError, ValueError):
            names = frozenset()
        self.all = names
        self.names = NamesOnDisk(names)

    @cached_property
    def stems(self) -> tuple[NamesOnDisk, dict[str, list[str]]]:
        by_stem: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.all):
            stem, suffix = posixpath.splitext(name)
            if suffix.lower() in IMAGE_SUFFIXES:
                by_stem[stem].append(name)
        return NamesOnDisk(by_stem), by_stem

    def like(self, name: str) -> list[str]:
        """Return the names that match: the same in another form, else images with this stem."""
        found = self.names.find(name)
        if found is None and "%" in name:
            found = self.names.find(unquote(name))
        if found is not None:
            return [found]
        if posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES:
            return []
        stems, by_stem = self.stems
        stem = stems.find(name)
        return [] if stem is None else by_stem[stem]


class _Disk:
    """The folders below a folder of images, listed on demand."""

    def __init__(self, base: Path, root: Path) -> None:
        self._root = root
        # COCO's annotations are in a folder beside the image folders.
        bases = [base, base.parent] if base.name.lower() == "annotations" else [base]
        self._leads = list(map(self._ref, bases))
        self._folders: dict[str, _Folder] = {}

    def _folder(self, path: str) -> _Folder:
        if path not in self._folders:
            self._folders[path] = _Folder(self._root / path)
        return self._folders[path]

    def has(self, ref: str) -> bool:
        folder, name = posixpath.split(ref)
        return name in self._folder(folder).all

    def find(self, ref: str) -> _Match:
        """Find the image of a reference whose file is missing."""
        folder, name = posixpath.split(ref)
        names = self._folder(folder).like(name)
        if names:
            return self._match([posixpath.join(folder, each) for each in names])
        if self._folder(folder).all:  # the folder exists without the image
            return self._match(self._anywhere(name)) if folder in self._leads else _Match()
        parts = self._parts(folder)
        for lead in self._leads:
            for first in range(len(parts) + 1):
                near = self._alike(lead, parts[first:])
                names = [] if near is None else self._folder(near).like(name)
                if near is not None and names:
                    return self._match([posixpath.join(near, each) for each in names])
        return self._match(self._anywhere(name)) if _is_foreign(ref) else _Match()

    def _parts(self, folder: str) -> list[str]:
        """Return the folders in a reference, without those of the data's own folder."""
        lead = self._leads[0]
        own = posixpath.relpath(folder, lead) if lead and folder.startswith(f"{lead}/") else folder
        return [part for part in own.split("/") if part]

    def _match(self, refs: list[str]) -> _Match:
        return _Match(found=refs[0]) if len(refs) == 1 else _Match(several=tuple(map(_short, refs)))

    def _ref(self, path: Path) -> str:
        relative = os.path.relpath(path, self._root)
        return "" if relative == "." else Path(relative).as_posix()

    def _alike(self, lead: str, parts: list[str]) -> str | None:
        """Return the folder at a path below another, its parts in any Unicode form or case."""
        folder = lead
        for part in parts:
            names = self._folder(folder).names
            found = names.find(part) or names.find(unquote(part))
            if found is None:
                return None
            folder = posixpath.join(folder, found)
        return folder

    def _anywhere(self, name: str) -> list[str]:
        return [posixpath.join(folder, each) for folder in self._below for each in self._folder(folder).like(name)]

    @cached_property
    def _below(self) -> list[str]:
        """The folders below that of the data, up to a depth and number."""
        found: list[str] = []
        level = list(self._leads)
        for _ in range(_MAX_DEPTH):
            deeper: list[str] = []
            for folder in level:
                if len(found) + len(deeper) > _MAX_FOLDERS:
                    break
                deeper += _folders_in(self._root / folder, folder)
            found += deeper
            level = deeper
        return list(dict.fromkeys(found))


def _folders_in(path: Path, ref: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return []
    return [posixpath.join(ref, name) for name in sorted(names)]
