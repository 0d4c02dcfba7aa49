"""Names of images in the result: unique on every file system, not too long, and read by `load_manifest`."""

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
from calotype.manifest.file_kinds import IMAGE_SUFFIXES, SYSTEM_NAMES
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
"""Most bytes of a file's or folder's name in UTF-8; file systems allow 255, and a suffix and number are added."""
_PATH: Final = 900
"""Most bytes of a relative path; a longer one loses its folders."""
_BAD = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
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
    """Return the suffix for an image's format, from its first bytes.

    Raises:
        NotAnImageError: They are not an image.
    """
    return _SUFFIXES[sniff(data[:HEAD])]


def split_suffix(name: str) -> tuple[str, str]:
    """Split a name into stem and suffix; the suffix is empty if it is not an image's."""
    stem, suffix = posixpath.splitext(name)
    return (stem, suffix) if suffix.lower() in IMAGE_SUFFIXES else (name, "")


def is_whole_file(ref: ImageRef) -> bool:
    """Whether an image is a file of its own on a local disk."""
    return ref.path is not None and ref.key is None and ref.size is None and not ref.offset


def wish(ref: ImageRef) -> str:
    """Return an image's name in the source, relative; it may clash with others."""
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
    """Return a path component that every file system accepts and `load_manifest` reads."""
    component = _BAD.sub("_", component).strip(" ").rstrip(".")
    if not component or component.startswith(".") or component.casefold() in SYSTEM_NAMES:
        component = f"_{component}"
    return _shortened(component, _COMPONENT)


def tidy(name: str) -> str:
    """Clean a path by component: it stays inside the folder, and kohya's repeats, which are weights, are removed."""
    name, suffix = split_suffix(_ARCHIVE.sub(r"\1_", name))
    components = [_clean(part) for part in name.split("/") if part not in ("", ".", "..")] or ["picture"]
    if len(components) > 1 and (match := KOHYA_FOLDER.fullmatch(components[0])):
        components[0] = _clean(match[2])
    whole = "/".join(components)
    return (whole if len(whole.encode("utf-8")) <= _PATH else components[-1]) + suffix


class Names:
    """Makes names unique, also on file systems that ignore case or normalise Unicode.

    Args:
        by_stem: Names must differ without their suffix too.
    """

    def __init__(self, *, by_stem: bool = False) -> None:
        self._by_stem = by_stem
        self._whole: set[str] = set()
        self._stems: set[str] = set()
        self._open: set[str] = set()
        """Stems with an unknown suffix: they clash with every suffix."""
        self._next: dict[str, int] = {}
        """Wanted name → the next number to try, since thousands may want the same name."""

    def take(self, name: str) -> str:
        """Return the name, or the first free one with a number: `a-2.jpg`."""
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
    """Yield names of image files, close to those in the source."""
    names = Names()
    for row in rows:
        yield names.take(tidy(wish(row.image)))


def stem_names(rows: Iterable[Row]) -> Iterator[str]:
    """Yield names with unique stems without dots: in an archive, the stem is the key of a sample."""
    names = Names(by_stem=True)
    for row in rows:
        folder, base = posixpath.split(tidy(wish(row.image)))
        stem, suffix = split_suffix(base)
        yield names.take(posixpath.join(folder, stem.replace(".", "_") + suffix))


@lru_cache(4096)
def _relative(source: str, folder: str) -> str:
    return Path(os.path.relpath(os.path.realpath(source), os.path.realpath(folder))).as_posix()


def reference(ref: ImageRef, folder: Path) -> str | None:
    """Return the reference from a data file in `folder` to an image; None where the format has none for it."""
    if ref.url is not None:
        return ref.url
    assert ref.path is not None
    parent, base = os.path.split(ref.path)
    # Links are resolved: `..` after a link leads to the parent of the link's target.
    path = posixpath.normpath(posixpath.join(_relative(parent, str(folder)), base))
    if is_whole_file(ref):
        if _ARCHIVE.search(path):  # readers would look inside an archive
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
    """Yield the references from a data file in `folder` to the images.

    Raises:
        ConfigError: An image has no reference.
    """
    for row in rows:
        found = reference(row.image, folder)
        if found is None:
            raise ConfigError(
                f"images: 'refer' can't refer to {row.image.name} in {row.image.path}; choose 'copy' or 'embed'"
            )
        yield found
