"""Kinds of files by their names: images, captions, data, packed files, and files known to be none of these."""

from __future__ import annotations

import os
import shlex
from typing import Final

__all__ = [
    "ARCHIVES",
    "CAPTION_SUFFIXES",
    "DATA_SUFFIXES",
    "IMAGE_SUFFIXES",
    "METADATA",
    "SYSTEM_NAMES",
    "UNRELATED_NAMES",
    "UNRELATED_SUFFIXES",
    "WEIGHTS",
    "archive_suffix",
    "stem_of",
    "suffix_of",
    "unpack_command",
]

IMAGE_SUFFIXES: Final = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .avif .gif .bmp .tif .tiff .heic .heif".split()  # noqa: SIM905
)
CAPTION_SUFFIXES: Final = (".txt", ".caption", ".json")
"""Suffixes of caption files beside images, in the order of their captions."""
DATA_SUFFIXES: Final = frozenset(
    ".json .jsonl .ndjson .csv .tsv .parquet .arrow .feather .tar .mdb".split()  # noqa: SIM905
)
METADATA: Final = frozenset({"metadata.jsonl", "metadata.csv", "metadata.parquet"})
"""Names of Hugging Face's metadata files, in lower case."""
SYSTEM_NAMES: Final = frozenset({"__macosx", "thumbs.db", "desktop.ini", "lock.mdb", "@eadir", "$recycle.bin"})
"""Names of files and folders that operating systems and LMDB write, in lower case: they are not read."""

ARCHIVES: Final = (
    ".tar.gz .tar.bz2 .tar.xz .tar.zst .tar.lz4 .tgz .tbz2 .tbz .txz .tzst .zip .rar .7z .cbz .cbr .gz .bz2 .xz .zst "  # noqa: SIM905
    ".lz4".split()
)
"""Suffixes of packed files, longer ones first."""

WEIGHTS: Final = frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".npz", ".npy", ".bin", ".pkl"})
"""Suffixes of files that trainers and their caches write."""

UNRELATED_SUFFIXES: Final = WEIGHTS | frozenset(
    ".toml .yaml .yml .ini .cfg .md .rst .log .py .sh .bat .ps1 .html .htm .xml .xmp .aae .thm .lock .db .sqlite "  # noqa: SIM905
    ".sqlite3 .idx .url .webloc .md5 .sha1 .sha256 .onnx .gguf .ipynb .css .js .c2pa".split()
)
"""Suffixes of files that are common beside images and are neither images nor captions: they are not reported."""

UNRELATED_NAMES: Final = frozenset(
    "readme license licence copying authors makefile dockerfile checksums sha256sums md5sums".split()  # noqa: SIM905
)
"""Names of such files without a suffix, in lower case."""

_COMMANDS: Final = {
    ".tar.gz": "gunzip {}",
    ".tgz": "gunzip {}",
    ".tar.bz2": "bunzip2 {}",
    ".tbz2": "bunzip2 {}",
    ".tbz": "bunzip2 {}",
    ".tar.xz": "unxz {}",
    ".txz": "unxz {}",
    ".tar.zst": "unzstd --rm {}",
    ".tzst": "unzstd --rm {}",
    ".tar.lz4": "unlz4 --rm -m {}",
    ".zip": "unzip {} -d {folder}",
    ".cbz": "unzip {} -d {folder}",
    ".rar": "unrar x {} {folder}/",
    ".cbr": "unrar x {} {folder}/",
    ".7z": "7z x {} -o{folder}",
    ".gz": "gunzip {}",
    ".bz2": "bunzip2 {}",
    ".xz": "unxz {}",
    ".zst": "unzstd --rm {}",
    ".lz4": "unlz4 --rm -m {}",
}
"""Suffix → the command that unpacks such a file. A compressed tar becomes a tar, which is read directly."""


def stem_of(name: str) -> str:
    """Return the name without its last suffix."""
    return name[: _dot(name)]


def suffix_of(name: str) -> str:
    """Return the last suffix of a name, in lower case."""
    return name[_dot(name) :].lower()


def _dot(name: str) -> int:
    """Return where the last suffix of a name begins: as `os.path.splitext`, in a third of its time."""
    dot = name.rfind(".")
    if dot > 0 and dot > max(name.rfind("/"), name.rfind(os.sep)) + 1 and name[dot - 1] != ".":
        return dot
    return len(os.path.splitext(name)[0])  # noqa: PTH122


def archive_suffix(name: str) -> str | None:
    """Return the suffix of a packed file, in lower case; None for any other file."""
    lower = name.lower()
    return next((suffix for suffix in ARCHIVES if lower.endswith(suffix)), None)


def unpack_command(path: str) -> str:
    """Return the command that unpacks a file: into a folder beside it, or into the one file or tar that it holds."""
    suffix = archive_suffix(path) or ".zip"
    return _COMMANDS[suffix].format(shlex.quote(path), folder=shlex.quote(path[: -len(suffix)]))
