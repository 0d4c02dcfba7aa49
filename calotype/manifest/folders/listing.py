"""Lists a folder: images, caption files, data files and others, by name; and the files to leave out."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from calotype.errors import ManifestError
from calotype.manifest.exclude import EXCLUDE_NOTHING, Exclude
from calotype.manifest.file_kinds import (
    CAPTION_SUFFIXES,
    DATA_SUFFIXES,
    IMAGE_SUFFIXES,
    METADATA,
    SYSTEM_NAMES,
    archive_suffix,
    stem_of,
    suffix_of,
    unpack_command,
)
from calotype.manifest.folders.companions import find_companions

__all__ = ["LeftOut", "Listing", "leave_out", "list_folder", "printable"]

_MAX_LINKS: Final = 100
"""Maximum visits of one folder through links: more are likely an endless structure."""


class LeftOut(NamedTuple):
    """A file or folder that is left out."""

    kind: str
    """Kind of the ledger entry: `companion`, `regularisation`, `excluded`, `archive`, `link_loop`, `broken_link`."""
    name: str
    """Path relative to the folder, with a trailing slash for a folder."""
    reason: str


@dataclass(slots=True, kw_only=True)
class Listing:
    """The files of a folder, as sorted POSIX paths relative to it."""

    images: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Files of other kinds."""
    other_splits: list[str] = field(default_factory=list)
    """Images of other splits than the requested one."""
    left_out: list[LeftOut] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    """Sentences about images that are read but may not be meant as samples."""

    @property
    def metadata(self) -> list[str]:
        """Those of `data` that are Hugging Face's metadata files."""
        return [name for name in self.data if posixpath.basename(name).lower() in METADATA]


def list_folder(
    folder: Path,
    recursive: bool,
    on_bad: Callable[[str, str], None],
    caption_suffixes: Sequence[str] = CAPTION_SUFFIXES,
    exclude: Exclude = EXCLUDE_NOTHING,
    *,
    names: dict[str, set[str]] | None = None,
) -> Listing:
    """List a folder without its hidden and system files.

    Args:
        folder: The folder.
        recursive: Whether to list the folders in it, too.
        on_bad: Called with path and reason for a name that is not UTF-8, and for a folder inside that can't be read.
        caption_suffixes: Suffixes of caption files.
        exclude: Patterns of what to leave out.
        names: Receives each folder that was read, relative and with a trailing slash (`""`: the folder itself), and
            the names in it that are not hidden: while they are the same, so is the listing.

    Raises:
        ManifestError: The folder itself can't be read.
    """
    texts = tuple(suffix for suffix in caption_suffixes if suffix not in DATA_SUFFIXES)
    found = Listing()
    for name in _walk(folder, recursive, on_bad, exclude, found.left_out, names):
        suffix = suffix_of(name)
        if suffix in IMAGE_SUFFIXES:
            kind = found.images
        elif suffix in texts or name.lower().endswith(texts):
            kind = found.captions
        elif suffix in DATA_SUFFIXES:
            kind = found.data
        else:
            kind = found.others
        if not name.isascii():
            try:
                name.encode("utf-8")
            except UnicodeEncodeError:
                if kind is not found.others:
                    on_bad(f"{folder}/{printable(name)}", "the file's name is not UTF-8; rename it")
                    continue
        kind.append(name)
    for kind in (found.images, found.captions, found.data, found.others):
        kind.sort()
    leave_out(found, folder)
    return found


def leave_out(found: Listing, folder: Path, exclude: Exclude = EXCLUDE_NOTHING) -> None:
    """Move files that are not to be read from a listing's images and others to its `left_out`.

    Args:
        found: The listing; changed in place.
        folder: The folder that was listed.
        exclude: Patterns of images to leave out, if the listing was not made by `list_folder`.
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
    gone = {each.name for each in found.left_out if suffix_of(each.name) in IMAGE_SUFFIXES}
    if gone:  # leave out their caption files, too, without an entry
        gone |= set(map(stem_of, gone))
        gone -= {*found.images, *map(stem_of, found.images)}
        found.captions = [name for name in found.captions if stem_of(name) not in gone]


def printable(name: str) -> str:
    """Return a file name as text, bytes that are not UTF-8 escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _walk(
    folder: Path,
    recursive: bool,
    on_bad: Callable[[str, str], None],
    exclude: Exclude,
    left_out: list[LeftOut],
    names: dict[str, set[str]] | None,
) -> Iterator[str]:
    """Yield all files in a folder, relative to it, without hidden and system files."""
    visits: Counter[tuple[int, int]] = Counter()
    stack: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while stack:
        inside, above = stack.pop()
        path = f"{folder}/{inside}"
        try:
            stat = os.stat(path)  # noqa: PTH116
            with os.scandir(path) as scan:
                entries = list(scan)
        except OSError as error:
            if not inside:
                raise ManifestError(f"{folder}: the folder can't be read: {error.strerror}") from None
            on_bad(printable(path).removesuffix("/"), f"the folder can't be read: {error.strerror}")
            continue
        this = stat.st_dev, stat.st_ino
        visits[this] += 1
        if this in above or visits[this] > _MAX_LINKS:
            why = "a link to a folder above it, whose files are read there" if this in above else "one link too many to"
            left_out.append(LeftOut("link_loop", inside, f"{why}: {os.path.realpath(path)}"))
            continue
        if names is not None:
            names[inside] = {entry.name for entry in entries if not entry.name.startswith(".")}
        below = []
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name.lower() in SYSTEM_NAMES:
                continue
            is_folder, is_broken = _kind_of(entry)
            if exclude and (pattern := exclude.match(inside + name, folder=is_folder)):
                left_out.append(LeftOut("excluded", f"{inside}{name}{'/' * is_folder}", f"exclude has {pattern!r}"))
            elif is_folder:
                below.append(f"{inside}{name}/")
            elif is_broken and not _is_read(name):
                left_out.append(LeftOut("broken_link", inside + name, f"a broken link to {_target(entry.path)}"))
            else:
                yield inside + name  # a broken link to an image or caption is reported by its reader
        if recursive:
            below.sort(reverse=True)
            stack += ((each, (*above, this)) for each in below)


def _kind_of(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """Return whether an entry is a folder or a link to one, and whether it is a broken link."""
    try:
        if entry.is_dir():
            return True, False
        if entry.is_symlink():
            entry.stat()
    except OSError:  # a link to itself raises here already
        return False, True
    return False, False


def _is_read(name: str) -> bool:
    suffix = suffix_of(name)
    return suffix in IMAGE_SUFFIXES or suffix in CAPTION_SUFFIXES or suffix in DATA_SUFFIXES


def _target(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return "?"
