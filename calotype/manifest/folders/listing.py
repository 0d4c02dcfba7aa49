"""What lies in a folder: images, caption files, data files and others, by name; and what is left out of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from calotype.errors import ManifestError
from calotype.manifest.exclude import EXCLUDE_NOTHING, Exclude
from calotype.manifest.file_kinds import CAPTION_SUFFIXES, DATA_SUFFIXES, IMAGE_SUFFIXES, archive_suffix, unpack_command
from calotype.manifest.folders.companions import find_companions

__all__ = ["LeftOut", "Listing", "leave_out", "list_folder", "printable", "stem_of"]

_SYSTEM = frozenset({"__macosx", "thumbs.db", "desktop.ini", "lock.mdb", "@eadir", "$recycle.bin"})
_MOST_WAYS: Final = 100
"""Links by which one folder may be reached: more are no dataset, and may be without end."""


class LeftOut(NamedTuple):
    """A file or folder that is not read though it might be."""

    kind: str
    """As in the ledger: `companion`, `regularisation`, `excluded`, `archive`, `link_loop`, `broken_link`."""
    name: str
    """Relative to the folder; a folder's ends with a slash."""
    reason: str


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
    left_out: list[LeftOut] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    """Sentences on what is read though it may not be meant so."""


def list_folder(
    folder: Path,
    recursive: bool,
    on_bad: Callable[[str, str], None],
    caption_suffixes: Sequence[str] = CAPTION_SUFFIXES,
    exclude: Exclude = EXCLUDE_NOTHING,
) -> Listing:
    """Look through a folder once. Hidden and system files are passed over.

    Args:
        folder: Where to look.
        recursive: Whether to look into the folders in it, too.
        on_bad: Called with path and reason for a name that is not UTF-8, and for a folder inside that can't be read.
        caption_suffixes: Of caption files.
        exclude: What to leave out.

    Raises:
        ManifestError: The folder itself can't be read.
    """
    texts = tuple(suffix for suffix in caption_suffixes if suffix not in DATA_SUFFIXES)
    found = Listing()
    for name in _walk(folder, recursive, on_bad, exclude, found.left_out):
        suffix = _suffix(name)
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
            if names is not found.others:
                on_bad(f"{folder}/{printable(name)}", "the file's name is not UTF-8; rename it")
                continue
        names.append(name)
    for names in (found.images, found.captions, found.data, found.others):
        names.sort()
    leave_out(found, folder)
    return found


def leave_out(found: Listing, folder: Path, exclude: Exclude = EXCLUDE_NOTHING) -> None:
    """Take what is not to be read out of a listing's images and others.

    Args:
        found: What is changed.
        folder: Where it is.
        exclude: What to take out of the images, where the listing comes from no folder.
    """
    for name in found.images if exclude else ():
        if pattern := exclude.match_within(name):
            found.left_out.append(LeftOut("excluded", name, f"exclude has {pattern!r}"))
    excluded = {each.name for each in found.left_out}
    found.images = [name for name in found.images if name not in excluded] if excluded else found.images
    packed = [name for name in found.others if archive_suffix(name)]
    if packed:
        found.others = [name for name in found.others if not archive_suffix(name)]
        for name in packed:
            reason = f"packed files are not read; unpack it: {unpack_command(f'{folder}/{name}')}"
            found.left_out.append(LeftOut("archive", name, reason))
    companions = find_companions(found.images, found.captions, found.others)
    if companions.images:
        found.images = [name for name in found.images if name not in companions.images]
        found.left_out += (LeftOut(kind, name, reason) for name, (kind, reason) in companions.images.items())
    found.doubts += companions.doubts
    gone = {each.name for each in found.left_out if _suffix(each.name) in IMAGE_SUFFIXES}
    if gone:  # their captions go with them, without a word of their own
        gone |= set(map(stem_of, gone))
        gone -= {*found.images, *map(stem_of, found.images)}
        found.captions = [name for name in found.captions if stem_of(name) not in gone]


def printable(name: str) -> str:
    """A name whose bytes may be no text, as text."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def stem_of(name: str) -> str:
    """The name without its suffix."""
    return os.path.splitext(name)[0]  # noqa: PTH122 - a Path for each of 100,000 names costs a second


def _walk(
    folder: Path, recursive: bool, on_bad: Callable[[str, str], None], exclude: Exclude, left_out: list[LeftOut]
) -> Iterator[str]:
    """All files in a folder, relative to it, but hidden and system ones."""
    ways: Counter[tuple[int, int]] = Counter()
    stack: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while stack:
        inside, above = stack.pop()
        place = f"{folder}/{inside}"
        try:
            stat = os.stat(place)  # noqa: PTH116
            with os.scandir(place) as scan:
                entries = list(scan)
        except OSError as error:
            if not inside:
                raise ManifestError(f"{folder}: the folder can't be read: {error.strerror}") from None
            on_bad(printable(place).removesuffix("/"), f"the folder can't be read: {error.strerror}")
            continue
        this = stat.st_dev, stat.st_ino
        ways[this] += 1
        if this in above or ways[this] > _MOST_WAYS:
            why = "a link to a folder above it, whose files are read there" if this in above else "one link too many to"
            left_out.append(LeftOut("link_loop", inside, f"{why}: {os.path.realpath(place)}"))
            continue
        below = []
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name.lower() in _SYSTEM:
                continue
            is_folder, is_broken = _look(entry)
            if exclude and (pattern := exclude.match(inside + name, folder=is_folder)):
                left_out.append(LeftOut("excluded", f"{inside}{name}{'/' * is_folder}", f"exclude has {pattern!r}"))
            elif is_folder:
                below.append(f"{inside}{name}/")
            elif is_broken and not _is_read(name):
                left_out.append(
                    LeftOut("broken_link", inside + name, f"a link that leads nowhere: {_target(entry.path)}")
                )
            else:
                yield inside + name  # a broken link to an image or a caption is for their reader to name
        if recursive:
            below.sort(reverse=True)
            stack += ((each, (*above, this)) for each in below)


def _look(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """Whether an entry is a folder, or a link to one; and whether it is a link that leads nowhere."""
    try:
        if entry.is_dir():
            return True, False
        if entry.is_symlink():
            entry.stat()
    except OSError:  # a link to itself raises where one to nothing is just no folder
        return False, True
    return False, False


def _suffix(name: str) -> str:
    return name[len(stem_of(name)) :].lower()


def _is_read(name: str) -> bool:
    suffix = _suffix(name)
    return suffix in IMAGE_SUFFIXES or suffix in CAPTION_SUFFIXES or suffix in DATA_SUFFIXES


def _target(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return "?"
