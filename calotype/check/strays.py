"""Files in a folder that are not read but may be meant as samples: videos, drawings, other image formats."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from calotype.check.kinds import Level
from calotype.images.formats import HEAD, NotAnImageError, sniff
from calotype.manifest.exclude import EXCLUDE_NOTHING, Exclude
from calotype.manifest.file_kinds import UNRELATED_NAMES, UNRELATED_SUFFIXES, WEIGHTS
from calotype.manifest.folders.listing import list_folder

__all__ = ["Stray", "strays"]

_PLAIN: Final = (
    ".jxl .jp2 .j2k .jpx .jpf .jxr .wdp .exr .hdr .tga .dds .ico .ppm .pgm .pbm .pnm .pcx .qoi .avifs .mos .hif"
)
_DRAWINGS: Final = ".psd .psb .xcf .kra .clip .procreate .afphoto .svg .svgz .ai .eps .pdf"
_RAW: Final = (
    ".raw .dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .raf .rw2 .orf .pef .srw .x3f .3fr .iiq .erf"  # camera formats
)
_VIDEOS: Final = ".mp4 .m4v .mov .webm .mkv .avi .wmv .flv .mpg .mpeg .mts .m2ts .3gp .ogv"
_TABLES: Final = ".xlsx .xls .ods .numbers"
_TEXTS: Final = ".docx .doc .odt .rtf .pages"
_PARTS: Final = ".part .partial .crdownload .download .tmp .aria2 .!ut"
_WHAT: Final = {
    suffix: (what, advice)
    for suffixes, what, advice in (
        (_PLAIN, "images", None),
        (_DRAWINGS, "drawings", "export it as PNG or JPEG, or move it away"),
        (_RAW, "raw photos", "develop it to JPEG or PNG, or move it away"),
        (_VIDEOS, "videos", "save frames of it as images, or move it away"),
        (_TABLES, "spreadsheets", "save it as .csv, and give that as path or name it metadata.csv"),
        (_TEXTS, "documents", "save captions as plain text, in a .txt beside each image"),
        (_PARTS, "unfinished downloads", "download it again, or remove it"),
    )
    for suffix in suffixes.split()
}
"""Suffix → (what such files are, advice; None: the default advice of the finding)."""
_CACHE: Final = re.compile(r"[._]?(?:.*[-_ ])?cached?s?", re.IGNORECASE)


class Stray(NamedTuple):
    """A file that is not read, or several alike."""

    name: str
    """Relative to the folder, with forward slashes."""
    what: str
    advice: str | None = None
    """None: the default of the finding's kind."""
    level: Level | None = None
    others: tuple[str, ...] = ()


def strays(
    folder: Path, caption_suffixes: Sequence[str], exclude: Exclude = EXCLUDE_NOTHING, named: Collection[str] = ()
) -> Iterator[Stray]:
    """Yield the files in a folder, at any depth, that are not read.

    Of files with an unknown suffix the first 512 bytes are read, to detect images by content.

    Args:
        folder: The folder to search.
        caption_suffixes: Suffixes of caption files.
        exclude: Patterns of files to leave out.
        named: Paths of files that are reported already.
    """
    unknown: dict[str, list[str]] = defaultdict(list)
    caches: dict[str, list[str]] = defaultdict(list)
    for name in list_folder(folder, True, lambda where, reason: None, caption_suffixes, exclude).others:
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each of 100,000 names costs a second
        if f"{folder}/{name}" in named:
            continue
        if suffix in UNRELATED_SUFFIXES or posixpath.basename(name).lower() in UNRELATED_NAMES:
            home = posixpath.dirname(name)
            if suffix in WEIGHTS and _CACHE.fullmatch(posixpath.basename(home)):
                caches[home].append(name)
        elif suffix in _WHAT:
            what, advice = _WHAT[suffix]
            yield Stray(name, f"{what} of kind {suffix} are not read", advice)
        else:
            what = _content(folder / name)
            said = f"of the suffix {suffix!r}" if suffix else "without a suffix"
            if what == "":
                unknown[said].append(name)
            elif what.startswith("it "):
                yield Stray(name, what, "replace it by the file itself, or remove it")
            else:
                yield Stray(name, f"it is a {what} image, but files {said} are not read", "give it its suffix")
    for home, names in caches.items():
        what = f"{home}/ is a cache of another program: {len(names):,} files, none of them read"
        yield Stray(names[0], what, "nothing", "note")
    for said, names in unknown.items():
        what = f"{len(names):,} file(s) {said} are no images, and are not read"
        yield Stray(names[0], what, "nothing, if they are not part of the dataset", "note", tuple(names[1:]))


def _content(path: Path) -> str:
    """Return an image's format; a sentence that begins with `it ` for an unreadable or special file; else ''."""
    try:
        # Non-blocking: opening a pipe would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        return f"it can't be opened: {error.strerror}"
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return "it is a pipe or a device, and no file"
        return sniff(os.read(descriptor, HEAD))
    except (OSError, NotAnImageError):
        return ""
    finally:
        os.close(descriptor)
