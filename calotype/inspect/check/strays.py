"""Files of a folder that no row comes from, though somebody may think so: videos, drawings, pictures of other kinds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from calotype.images.formats import HEAD, NotAnImageError, sniff
from calotype.manifest.listing import DATA_SUFFIXES, walk_folder
from calotype.manifest.reading import CAPTION_SUFFIXES, IMAGE_SUFFIXES

__all__ = ["Stray", "strays"]

_PICTURES: Final = frozenset(
    ".psd .psb .xcf .kra .clip .svg .svgz .ai .eps .pdf .jxl .jp2 .j2k .jpx .jpf .jxr .wdp .exr .hdr .tga .dds .ico "  # noqa: SIM905
    ".ppm .pgm .pbm .pnm .pcx .qoi .raw .dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .raf .rw2 .orf .pef .srw .x3f "
    ".3fr .iiq .erf .mos .hif .avifs".split()
)
_VIDEOS: Final = frozenset(
    ".mp4 .m4v .mov .webm .mkv .avi .wmv .flv .mpg .mpeg .mts .m2ts .3gp .ogv".split()  # noqa: SIM905
)
_ARCHIVES: Final = frozenset(".zip .rar .7z .cbz .cbr".split())  # noqa: SIM905
_OTHERS: Final = frozenset(
    ".npz .npy .safetensors .pt .pth .ckpt .bin .pkl .toml .yaml .yml .ini .cfg .md .rst .log .py .sh .bat .ps1 .html "  # noqa: SIM905
    ".xml .xmp .aae .thm .lock .db .sqlite .sqlite3 .gz .bz2 .xz .zst .idx .tsv .part .tmp .doc .docx .xlsx".split()
)
"""What lies beside pictures and is not taken for one, so that it need not be opened."""


class Stray(NamedTuple):
    """A file that is not read."""

    name: str
    """Relative to the folder, with forward slashes."""
    what: str
    advice: str | None
    """None: the usual."""


def strays(folder: Path) -> Iterator[Stray]:
    """Looks through a folder and all below it. Files of a suffix that nobody knows are opened, 512 bytes of each."""
    for name in walk_folder(folder, recursive=True):
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each of 100,000 names costs a second
        if suffix in IMAGE_SUFFIXES or suffix in CAPTION_SUFFIXES or suffix in DATA_SUFFIXES or suffix in _OTHERS:
            continue
        if suffix in _PICTURES:
            yield Stray(name, f"pictures of kind {suffix} are not read", None)
        elif suffix in _VIDEOS:
            yield Stray(name, f"videos ({suffix}) are not read", "save frames of it as pictures, or move it away")
        elif suffix in _ARCHIVES:
            yield Stray(name, f"archives of kind {suffix} are not read", "unpack it, or move it away")
        elif format := _picture(folder / name):
            said = f"of the suffix {suffix!r}" if suffix else "without a suffix"
            yield Stray(name, f"it is a {format} picture, but files {said} are not read", "give it its suffix")


def _picture(path: Path) -> str | None:
    """The format of a file that is a picture by its content."""
    try:
        # Non-blocking, for the case of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        return sniff(os.read(descriptor, HEAD))
    except (OSError, NotAnImageError):
        return None
    finally:
        os.close(descriptor)
