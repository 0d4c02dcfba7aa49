"""Kinds of files by their names: images, captions, data, packed files, and files known to be none of these."""

from __future__ import annotations

import shlex
from typing import Final

__all__ = [
    "ARCHIVES",
    "CAPTION_SUFFIXES",
    "DATA_SUFFIXES",
    "IMAGE_SUFFIXES",
    "METADATA",
    "UNRELATED_NAMES",
    "UNRELATED_SUFFIXES",
    "WEIGHTS",
    "archive_suffix",
    "unpack_command",
]

IMAGE_SUFFIXES: Final = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .avif .gif .bmp .tif .tiff .heic .heif".split()  # noqa: SIM905
)
CAPTION_SUFFIXES: Final = (".txt", ".caption", ".json")
"""Of the files beside images that are read as captions."""
DATA_SUFFIXES: Final = frozenset(
    ".json .jsonl .ndjson .csv .tsv .parquet .arrow .feather .tar .mdb".split()  # noqa: SIM905
)
METADATA: Final = frozenset({"metadata.jsonl", "metadata.csv", "metadata.parquet"})
"""Names of Hugging Face's metadata files, in lower case."""

ARCHIVES: Final = (
    ".tar.gz .tar.bz2 .tar.xz .tar.zst .tar.lz4 .tgz .tbz2 .tbz .txz .tzst .zip .rar .7z .cbz .cbr .gz .bz2 .xz .zst "  # noqa: SIM905
    ".lz4".split()
)
"""Suffixes of packed files, the longer ones first."""

WEIGHTS: Final = frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".npz", ".npy", ".bin", ".pkl"})
"""Of what trainers and their caches write."""

UNRELATED_SUFFIXES: Final = WEIGHTS | frozenset(
    ".toml .yaml .yml .ini .cfg .md .rst .log .py .sh .bat .ps1 .html .htm .xml .xmp .aae .thm .lock .db .sqlite "  # noqa: SIM905
    ".sqlite3 .idx .url .webloc .md5 .sha1 .sha256 .onnx .gguf .ipynb .css .js .c2pa".split()
)
"""Of what lies beside images and is neither image nor caption, so that nobody needs to hear of it."""

UNRELATED_NAMES: Final = frozenset(
    "readme license licence copying authors makefile dockerfile checksums sha256sums md5sums".split()  # noqa: SIM905
)
"""Names without a suffix, in lower case, of which the same holds."""

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
    ".zip": "unzip {} -d {home}",
    ".cbz": "unzip {} -d {home}",
    ".rar": "unrar x {} {home}/",
    ".cbr": "unrar x {} {home}/",
    ".7z": "7z x {} -o{home}",
    ".gz": "gunzip {}",
    ".bz2": "bunzip2 {}",
    ".xz": "unxz {}",
    ".zst": "unzstd --rm {}",
    ".lz4": "unlz4 --rm -m {}",
}
"""Suffix → what unpacks such a file: tar shards stay shards, and are read as they are."""


def archive_suffix(name: str) -> str | None:
    """The suffix of a packed file, in lower case; None for any other."""
    lower = name.lower()
    return next((suffix for suffix in ARCHIVES if lower.endswith(suffix)), None)


def unpack_command(path: str) -> str:
    """The command that unpacks a file: into a folder beside it, or, of one file or tar, into that."""
    suffix = archive_suffix(path) or ".zip"
    return _COMMANDS[suffix].format(shlex.quote(path), home=shlex.quote(path[: -len(suffix)]))
