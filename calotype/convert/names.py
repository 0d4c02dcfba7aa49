"""Names in the result: no two alike on any file system, none too long, none that a reader would pass over."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import xxhash

from calotype.errors import ConfigError
from calotype.images.formats import HEAD, sniff
from calotype.manifest.file_kinds import IMAGE_SUFFIXES
from calotype.manifest.folders.kohya import KOHYA_FOLDER
from calotype.manifest.manifest import REMOTE
from calotype.types import ImageRef, Row

__all__ = [
    "Names",
    "file_names",
    "is_whole_file",
    "reference",
    "references",
    "split_suffix",
    "stem_names",
    "suffix_of",
    "tidy",
    "wish",
]

_COMPONENT: Final = 180
"""Bytes of UTF-8 that a file's or folder's name may have; systems take 255, and a suffix and a number come on top."""
_PATH: Final = 900
"""Bytes of a whole name; what is longer loses its folders."""
_BAD = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_SYSTEM = frozenset({"__macosx", "thumbs.db", "desktop.ini", "lock.mdb", "@eadir", "$recycle.bin"})
_MEMBER = re.compile(r".*?\.tar!(.+)", re.DOTALL)
_NUMBERED = re.compile(r".*#(\d+)(?:!(.+))?", re.DOTALL)
_SUFFIXES: Final = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "HEIF": ".heic",
}
_ARCHIVE = re.compile(r"(\.(?:tar|lmdb|mdb))!(?=.)")


def suffix_of(data: bytes) -> str:
    """The suffix that goes with an image's first bytes.

    Raises:
        NotAnImageError: They are no image's.
    """
    return _SUFFIXES[sniff(data[:HEAD])]


def split_suffix(name: str) -> tuple[str, str]:
    """(name without the suffix, suffix); no suffix where it is none of an image."""
    stem, suffix = posixpath.splitext(name)
    return (stem, suffix) if suffix.lower() in IMAGE_SUFFIXES else (name, "")


def is_whole_file(ref: ImageRef) -> bool:
    """Whether an image is a file of its own on this machine."""
    return ref.path is not None and ref.key is None and ref.size is None and not ref.offset


def wish(ref: ImageRef) -> str:
    """The name that an image has where it comes from, relative; it may clash with others."""
    if ref.url is not None:
        return posixpath.basename(unquote(urlsplit(ref.url).path).rstrip("/")) or "picture"
    name = ref.name
    if ref.key is not None:
        name = ref.key.decode("utf-8", "replace")
    elif not is_whole_file(ref):
        if match := _MEMBER.fullmatch(name):
            name = match[1]
        elif match := _NUMBERED.fullmatch(name):
            name = match[2] or f"{int(match[1]):06d}"
    outside = posixpath.isabs(name) or name.startswith("../") or REMOTE.match(name)
    return posixpath.basename(name) if outside else name


def _shortened(text: str, limit: int) -> str:
    data = text.encode("utf-8")
    if len(data) <= limit:
        return text
    return f"{data[: limit - 9].decode('utf-8', 'ignore')}-{xxhash.xxh3_64_hexdigest(data)[:8]}"


def _clean(component: str) -> str:
    """A component that every file system takes and `load_manifest` does not pass over."""
    component = _BAD.sub("_", component).strip(" ").rstrip(".")
    if not component or component.startswith(".") or component.casefold() in _SYSTEM:
        component = f"_{component}"
    return _shortened(component, _COMPONENT)


def tidy(name: str) -> str:
    """Component by component; never out of the folder, and not with kohya's repeats, which would count as weights."""
    name, suffix = split_suffix(_ARCHIVE.sub(r"\1_", name))
    components = [_clean(part) for part in name.split("/") if part not in ("", ".", "..")] or ["picture"]
    if len(components) > 1 and (match := KOHYA_FOLDER.fullmatch(components[0])):
        components[0] = _clean(match[2])
    whole = "/".join(components)
    return (whole if len(whole.encode("utf-8")) <= _PATH else components[-1]) + suffix


class Names:
    """Hands out names that differ, also where upper and lower case or ways to write an accent don't count.

    Args:
        by_stem: Names must differ without their suffix too.
    """

    def __init__(self, *, by_stem: bool = False) -> None:
        self._by_stem = by_stem
        self._whole: set[str] = set()
        self._stems: set[str] = set()
        self._open: set[str] = set()
        """Stems whose suffix is not known yet: they are taken with every suffix."""
        self._next: dict[str, int] = {}
        """Wanted name → the number to try next, as thousands may want the same."""

    def take(self, name: str) -> str:
        """The name, or the nearest one that is free: `a-2.jpg`."""
        stem, suffix = split_suffix(name)
        wanted = name.casefold()
        number = self._next.get(wanted, 1)
        while True:
            tried = stem if number == 1 else f"{stem}-{number}"
            key = unicodedata.normalize("NFC", tried).casefold()
            whole = key + suffix.lower()
            taken = key in self._stems if self._by_stem or not suffix else whole in self._whole or key in self._open
            if not taken:
                self._stems.add(key)
                self._whole.add(whole)
                if not suffix:
                    self._open.add(key)
                self._next[wanted] = number + 1
                return tried + suffix
            number += 1


def file_names(rows: Iterable[Row]) -> Iterator[str]:
    """Names of image files, as near as can be to those that they had."""
    names = Names()
    for row in rows:
        yield names.take(tidy(wish(row.image)))


def stem_names(rows: Iterable[Row]) -> Iterator[str]:
    """Names that differ in their stems, which hold no dot: what goes together in an archive is told by them."""
    names = Names(by_stem=True)
    for row in rows:
        folder, base = posixpath.split(tidy(wish(row.image)))
        stem, suffix = split_suffix(base)
        yield names.take(posixpath.join(folder, stem.replace(".", "_") + suffix))


@lru_cache(4096)
def _way(place: str, folder: str) -> str:
    return Path(os.path.relpath(os.path.realpath(place), os.path.realpath(folder))).as_posix()


def reference(ref: ImageRef, folder: Path) -> str | None:
    """What a data file in `folder` calls an image that stays where it is; None where no reference can lead there."""
    if ref.url is not None:
        return ref.url
    assert ref.path is not None
    place, base = os.path.split(ref.path)
    # Without links on the way, since `..` in a path leads up from where a link leads to.
    path = posixpath.normpath(posixpath.join(_way(place, str(folder)), base))
    if is_whole_file(ref):
        if _ARCHIVE.search(path):  # it would be looked for inside an archive
            return None
        awkward = path != path.strip() or "\\" in path or REMOTE.match(path)
        return Path(ref.path).as_uri() if awkward else path
    suffix = posixpath.splitext(path)[1].lower()
    if ref.key is not None:
        key = ref.key.decode("utf-8", "replace")
        return f"{path}!{key}" if suffix in (".lmdb", ".mdb") and key.encode("utf-8") == ref.key else None
    match = _MEMBER.fullmatch(ref.name) if suffix == ".tar" else None
    return f"{path}!{match[1]}" if match else None


def references(rows: Iterable[Row], folder: Path) -> Iterator[str]:
    """What a data file in `folder` calls the images.

    Raises:
        ConfigError: An image lies where no reference can lead.
    """
    for row in rows:
        found = reference(row.image, folder)
        if found is None:
            raise ConfigError(
                f"images: 'refer' can't lead to {row.image.name}, at {row.image.path}; choose 'copy' or 'embed'"
            )
        yield found
