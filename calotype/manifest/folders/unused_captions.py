"""What may hold captions and was not used: named in the ledger, and an error where no image has any caption."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from calotype.core.small_files import require_regular
from calotype.errors import MissingCaptionError
from calotype.manifest.captions import decode_text, is_text
from calotype.manifest.folders.caption_files import CaptionFiles
from calotype.manifest.folders.listing import Listing, stem_of
from calotype.manifest.manifest import EXTRA, Manifest
from calotype.manifest.reading import Part, Reading

__all__ = [
    "UNUSED",
    "add_unused",
    "has_captions",
    "may_be_captions",
    "note_other_columns",
    "note_unused_files",
    "require_captions",
    "unused_captions",
]

UNUSED: Final = "unused_captions"
"""Kind in the ledger."""
_OF_OTHER_THINGS: Final = re.compile(r"(?i)(?:readme|licen[cs]e|copying|requirements|changelog|install)\b")
"""Texts that lie in many folders, and are about something else than an image."""

_NOT_CAPTIONS: Final = frozenset(
    ".xmp .aae .thm .xml .html .htm .svg .log .lock .url .webloc .ini .cfg .py .sh .bat .md5 .sha1 .sha256 .tmp .part "  # noqa: SIM905
    ".bak .mp4 .mov .safetensors .npz .npy .pt .pth .ckpt .bin .zip .gz .psd .xcf .pdf".split()
)
"""What lies beside images, has their names, and is no caption."""
_HEAD: Final = 4096
_QUOTED: Final = re.compile(r'"([^"\n]{1,255})"')
_FEW: Final = 3
_MANY: Final = 12


def add_unused(reading: Reading, where: str, reason: str) -> None:
    """Enters what may hold captions, and is not used, into the ledger."""
    reading.ledger.add(UNUSED, where, reason)


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
            add_unused(reading, str(folder / name), why)
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
                add_unused(reading, str(folder / name), reason)
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
                add_unused(reading, str(folder / name), reason)


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


def may_be_captions(kind: str, where: str) -> bool:
    """Whether a ledger entry is about something that may hold captions and was not used."""
    return kind == UNUSED or (kind == "no_picture" and not _OF_OTHER_THINGS.match(posixpath.basename(where)))


def unused_captions(found: Manifest | Reading) -> list[str]:
    """One sentence for each reason for which something that may hold captions was not used."""
    by_reason: dict[str, list[str]] = {}
    for entry in found.ledger:
        if may_be_captions(entry.kind, entry.id):
            by_reason.setdefault(entry.reason, []).append(entry.id.removeprefix(f"{found.root}/"))
    return [f"{_few(where)}: {reason}" for reason, where in by_reason.items()]


def note_other_columns(file: str, part: Part, reading: Reading) -> None:
    """Names the columns of a data file in which no caption was found, for one of them may hold captions."""
    if pc.any(pc.greater(pc.list_value_length(part.table["captions"]), 0)).as_py():
        return
    own = [field for field in part.table.schema if field.name.startswith(EXTRA)]
    texts = {
        field.name.removeprefix(EXTRA): pc.sum(pc.binary_length(part.table[field.name])).as_py() or 0
        for field in own
        if is_text(field.type) and not field.metadata
    }
    likely = max(texts, key=lambda name: texts[name]) if texts and max(texts.values()) else None
    if likely or any(field.metadata or pa.types.is_nested(field.type) for field in own):
        names = [field.name.removeprefix(EXTRA) for field in own]
        more = ", …" if len(names) > _MANY else ""
        how = f"Set columns.caption={likely}" if likely else "Put the captions into a column of text, such as caption"
        reason = f"no caption column. Found columns: {', '.join(names[:_MANY])}{more}. {how}"
        reading.note(f"{file.removeprefix(f'{reading.root}/')}: {reason}")
        add_unused(reading, file, reason)


def _few(where: list[str]) -> str:
    more = f" and {len(where) - 1:,} more" if len(where) > 1 else ""
    return f"{where[0]}{more}"


def has_captions(captions: Any) -> bool:
    """Whether any row of a column of captions has a text that is not empty."""
    if pa.types.is_null(captions.type):
        return False
    return bool(pc.any(pc.greater(pc.binary_length(pc.list_flatten(captions)), 0)).as_py())


def require_captions(manifest: Manifest) -> None:
    """Stops where no image has a caption though something is there that may hold them.

    For whoever reads images without a caption as meant, because a trigger or template gives each its text.

    Raises:
        MissingCaptionError: Names what is there, and how to use it.
    """
    found = unused_captions(manifest)
    if found and not has_captions(manifest.captions):
        raise MissingCaptionError(
            f"none of the {len(manifest):,} images has a caption, and something that may hold captions is not used. "
            f"{'. '.join(found[:_FEW])}{' (more in the ledger)' if len(found) > _FEW else ''}. "
            "missing_captions='empty' goes on without them"
        )
