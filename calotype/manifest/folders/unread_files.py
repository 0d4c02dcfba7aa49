"""Files of a folder that are not read: named in the ledger, and in the notes of `Manifest.describe`."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from calotype.core.small_files import require_regular
from calotype.manifest.captions import decode_text
from calotype.manifest.folders.caption_files import CaptionFiles
from calotype.manifest.folders.listing import LeftOut, Listing, printable, stem_of
from calotype.manifest.reading import Part, Reading
from calotype.manifest.unused_captions import add_unused_captions

__all__ = ["name_left_out", "note_unused_files"]

_KINDS: Final = {
    "companion": "images that are no samples",
    "regularisation": "regularisation images",
    "archive": "packed files",
    "link_loop": "links to folders above them",
    "broken_link": "links that lead nowhere",
}
"""Kind in the ledger → what a note calls them. What `exclude` leaves out needs none."""

_NOT_CAPTIONS: Final = frozenset(
    ".xmp .aae .thm .xml .html .htm .svg .log .lock .url .webloc .ini .cfg .py .sh .bat .md5 .sha1 .sha256 .tmp .part "  # noqa: SIM905
    ".bak .mp4 .mov .safetensors .npz .npy .pt .pth .ckpt .bin .zip .gz .psd .xcf .pdf".split()
)
"""What lies beside images, has their names, and is no caption."""
_HEAD: Final = 4096
_QUOTED: Final = re.compile(r'"([^"\n]{1,255})"')
_FEW: Final = 3


def name_left_out(folder: Path, listing: Listing, parts: Sequence[Part], reading: Reading) -> None:
    """Enter what was left out of a listing into the ledger, but images that a metadata file lists as rows."""
    lead = reading.relative(folder)
    lead = "" if lead == "." else f"{lead}/"
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
    """Names the files of a folder of images that may hold captions and are not read.

    Args:
        folder: The folder.
        listing: What lies in it.
        files: Which caption files belong to which image.
        unread: Data files that were not read.
        reading: Gets the notes and ledger entries.
    """
    for name, why in files.unused():
        if not why.startswith("a caption file"):
            add_unused_captions(reading, str(folder / name), why)
        elif name not in unread:
            reading.ledger.add("no_picture", str(folder / name), why)
    by_suffix: dict[str, list[str]] = {}
    described = () if ".json" in reading.caption_suffixes else [name for name in unread if name[-5:].lower() == ".json"]
    for name in (*listing.others, *described):
        suffix = name[len(stem_of(name)) :]
        if suffix.lower() not in _NOT_CAPTIONS and files.image_of(name) is not None:
            by_suffix.setdefault(suffix.lower(), []).append(name)
    for suffix, names in by_suffix.items():
        if _is_text(folder / names[0]):
            kind = f"of the suffix {suffix}" if suffix else "without a suffix"
            how = f"caption_suffix={suffix} reads them" if suffix else "call them .txt to have them read"
            reason = f"files {kind} beside images are not read; {how}"
            reading.note(f"{reason}: {', '.join(names[:_FEW])}{', …' if len(names) > _FEW else ''}")
            for name in names:
                add_unused_captions(reading, str(folder / name), reason)
    used = files.used()
    lists = [name for name in unread if name not in used and name not in by_suffix.get(".json", ())]
    if lists:
        reason = "not read, because the folder has images; give such a file as path to use it"
        bases = {posixpath.basename(name) for image in listing.images for name in (image, stem_of(image))}
        # img2dataset writes 00000.parquet and 00000_stats.json for what lies in 00000/, captions and all.
        about = {posixpath.dirname(name) for name in used}
        plain = [
            name
            for name in lists
            if stem_of(name).removesuffix("_stats") in about
            or (
                name[-5:].lower() == ".json"
                and posixpath.basename(stem_of(name)) not in bases
                and not _mentions(folder / name, bases)
            )
        ]
        reading.note(f"{reason}: {', '.join(lists[:_FEW])}{', …' if len(lists) > _FEW else ''}")
        for name in lists:
            if name not in plain:
                add_unused_captions(reading, str(folder / name), reason)


def _mentions(file: Path, bases: set[str]) -> bool:
    """Whether a JSON file names one of these images early on: then it is likely about them."""
    try:
        require_regular(file)
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
    except OSError:
        return False
    texts = _QUOTED.findall(head.decode("utf-8", "ignore"))
    return any(posixpath.basename(text) in bases for text in texts)


def _is_text(file: Path) -> bool:
    try:
        if not file.is_file():
            return False
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
        # A character may be cut at the end of the head.
        text = decode_text(head) if len(head) < _HEAD else head.decode("utf-8", "ignore")
    except (OSError, UnicodeDecodeError):
        return False
    return bool(text.strip()) and "\0" not in text
