"""Reports the files of a folder that are not read, in the ledger and in the notes of `Manifest.describe`."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from calotype.core.small_files import require_regular
from calotype.manifest.captions import decode_text
from calotype.manifest.file_kinds import stem_of
from calotype.manifest.folders.caption_files import CaptionFiles, is_json
from calotype.manifest.folders.listing import LeftOut, Listing, printable
from calotype.manifest.reading import Part, Reading
from calotype.manifest.unused_captions import add_unused_captions

__all__ = ["name_left_out", "note_unused_files"]

_KINDS: Final = {
    "companion": "images that are no samples",
    "regularisation": "regularisation images",
    "archive": "packed files",
    "link_loop": "links to folders above them",
    "broken_link": "broken links",
}
"""Kind in the ledger → its name in a note. Files that `exclude` leaves out are not noted."""

_NOT_CAPTIONS: Final = frozenset(
    ".xmp .aae .thm .xml .html .htm .svg .log .lock .url .webloc .ini .cfg .py .sh .bat .md5 .sha1 .sha256 .tmp .part "  # noqa: SIM905
    ".bak .mp4 .mov .safetensors .npz .npy .pt .pth .ckpt .bin .zip .gz .psd .xcf .pdf".split()
)
"""Suffixes of files that have the names of images and are not captions."""
_HEAD: Final = 4096
_QUOTED: Final = re.compile(r'"([^"\n]{1,255})"')
_FEW: Final = 3


def name_left_out(folder: Path, listing: Listing, parts: Sequence[Part], reading: Reading) -> None:
    """Report the files left out of a listing, except images that a metadata file lists as rows."""
    lead = reading.lead(folder)
    rows = {path for part in parts for path in part.paths().to_pylist()} if listing.left_out else set()
    by_kind: dict[str, list[LeftOut]] = defaultdict(list)
    for each in listing.left_out:
        if lead + each.name not in rows:
            reading.ledger.add(each.kind, f"{folder}/{printable(each.name)}", each.reason)
            by_kind[each.kind].append(each)
    for kind, several in by_kind.items():
        if kind in _KINDS:
            first, more = several[0], f" and {len(several) - 1:,} more" if len(several) > 1 else ""
            reading.note(f"{_KINDS[kind]} are left out: {printable(lead + first.name)}{more} ({first.reason})")
    for doubt in listing.doubts:
        reading.note(doubt)


def note_unused_files(folder: Path, listing: Listing, files: CaptionFiles, unread: list[str], reading: Reading) -> None:
    """Report the files of an image folder that may hold captions and are not read.

    Args:
        folder: The folder.
        listing: The files of the folder.
        files: The caption files of each image.
        unread: Data files that were not read.
        reading: Takes the notes and ledger entries.
    """
    # Caption files without an image, or with another file of higher priority.
    for name, why in files.unused():
        if not why.startswith("a caption file"):
            add_unused_captions(reading, str(folder / name), why)
        elif name not in unread:
            reading.ledger.add("no_picture", str(folder / name), why)
    # Text files of other suffixes that have the names of images.
    by_suffix: dict[str, list[str]] = {}
    json_files = [] if ".json" in reading.caption_suffixes else list(filter(is_json, unread))
    for name in (*listing.others, *json_files):
        suffix = name[len(stem_of(name)) :]
        if suffix.lower() not in _NOT_CAPTIONS and files.image_of(name) is not None:
            by_suffix.setdefault(suffix.lower(), []).append(name)
    for suffix, names in by_suffix.items():
        if _is_text(folder / names[0]):
            kind = f"of the suffix {suffix}" if suffix else "without a suffix"
            how = f"caption_suffix={suffix} reads them" if suffix else "rename them to .txt to read them"
            reason = f"files {kind} beside images are not read; {how}"
            reading.note(f"{reason}: {', '.join(names[:_FEW])}{', …' if len(names) > _FEW else ''}")
            for name in names:
                add_unused_captions(reading, str(folder / name), reason)
    # Data files; those that do not mention the images are only noted.
    used = files.used()
    lists = [name for name in unread if name not in used and name not in by_suffix.get(".json", ())]
    if lists:
        reason = "not read, because the folder has images; pass such a file as path to use it"
        bases = {posixpath.basename(name) for image in listing.images for name in (image, stem_of(image))}
        # img2dataset writes 00000.parquet and 00000_stats.json about the images and captions in 00000/.
        described = {posixpath.dirname(name) for name in used}
        plain = [
            name
            for name in lists
            if stem_of(name).removesuffix("_stats") in described
            or (
                is_json(name) and posixpath.basename(stem_of(name)) not in bases and not _mentions(folder / name, bases)
            )
        ]
        reading.note(f"{reason}: {', '.join(lists[:_FEW])}{', …' if len(lists) > _FEW else ''}")
        for name in lists:
            if name not in plain:
                add_unused_captions(reading, str(folder / name), reason)


def _mentions(file: Path, bases: set[str]) -> bool:
    """Whether a JSON file names one of these images in its first bytes."""
    texts = _QUOTED.findall(_head(file).decode("utf-8", "ignore"))
    return any(posixpath.basename(text) in bases for text in texts)


def _head(file: Path) -> bytes:
    """Return the first bytes of a file; empty if it can't be read."""
    try:
        require_regular(file)
        with file.open("rb") as opened:
            return opened.read(_HEAD)
    except OSError:
        return b""


def _is_text(file: Path) -> bool:
    head = _head(file)
    try:
        # The head may end inside a character.
        text = decode_text(head) if len(head) < _HEAD else head.decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and "\0" not in text
