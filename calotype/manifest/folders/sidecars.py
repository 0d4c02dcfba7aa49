"""Captions in files beside images: text, and JSON as captioners, img2dataset and booru downloaders write it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calotype.core.small_files import read_small_file
from calotype.manifest.captions import decode_text, split_captions
from calotype.manifest.folders.caption_files import CaptionFiles
from calotype.manifest.folders.json_captions import captions_in_json, join_captions, parse_json_object
from calotype.manifest.folders.listing import Listing
from calotype.manifest.folders.unused_captions import add_unused
from calotype.manifest.reading import Reading

__all__ = [
    "caption_files_of",
    "has_several_lines",
    "is_json",
    "note_several_lines",
    "sidecar_captions",
]


def caption_files_of(listing: Listing, suffixes: Sequence[str]) -> CaptionFiles:
    """The caption files of a folder's images: those of a listing, and its `.json` files beside images."""
    described = [name for name in listing.data if is_json(name)] if ".json" in suffixes else []
    return CaptionFiles(listing.images, [*listing.captions, *described], suffixes)


def sidecar_captions(
    folder: Path,
    files: CaptionFiles,
    rows: list[str],
    kohya: dict[str, tuple[float, str]],
    reading: Reading,
) -> list[list[str]]:
    """Captions of the images `rows`."""
    captions: list[list[str]] = []
    from_folder = 0
    several: list[str] = []
    for name in rows:
        own: list[str] = []
        listed: list[str] = []
        sidecars = files.of(name)
        for sidecar in sidecars:
            if is_json(sidecar):
                listed = _read_json(folder / sidecar, own, reading)
                continue
            texts = _read_text(folder / sidecar, reading)
            if has_several_lines(texts):
                several.append(sidecar)
            own += texts
        own = join_captions(own, listed, reading)
        repeats, class_name = kohya.get(name.rpartition("/")[0], (None, ""))
        if repeats is not None and not sidecars:  # an empty file is an empty caption, to kohya too
            own = [class_name]
            from_folder += 1
        captions.append(own)
    if from_folder:
        reading.note(f"{from_folder} picture(s) without a caption file are captioned by kohya's folder name")
    note_several_lines(several, reading)
    return captions


def has_several_lines(texts: list[str]) -> bool:
    """Whether the text of a caption file has several lines, each of which may be meant as a caption."""
    return any("\n" in text.strip() for text in texts)


def note_several_lines(files: list[str], reading: Reading) -> None:
    """Names caption files of several lines, unless somebody said what they are."""
    if files and reading.many_lines is None:
        count = "1 caption file has" if len(files) == 1 else f"{len(files):,} caption files have"
        reading.note(
            f"{count} several lines ({files[0]}), and each is one caption: caption_lines=many makes each line a "
            "caption, caption_lines=one says that this is meant"
        )


def is_json(name: str) -> bool:
    """Whether a caption file is JSON, and not text."""
    return name[-5:].lower() == ".json"


def _read_json(file: Path, texts: list[str], reading: Reading) -> list[str]:
    try:
        value = parse_json_object(read_small_file(file))
    except (TypeError, OSError) as error:
        add_unused(reading, str(file), f"not read: {error if isinstance(error, TypeError) else error.strerror}")
        return []
    except ValueError as error:
        if texts:
            add_unused(reading, str(file), f"not read: {error}; the text file beside it is")
        else:
            reading.bad(str(file), f"the caption can't be read: {error}")
        return []
    captions = [text for text in captions_in_json(value, reading)[0] if text.strip()]
    if not captions and not texts and reading.columns.get("caption", ()) is not None:
        keys = ", ".join(map(repr, list(value)[:8])) + (", …" if len(value) > 8 else "")
        add_unused(reading, str(file), f"no caption among its keys: {keys or 'none'}; name one with columns.caption")
    return captions


def _read_text(file: Path, reading: Reading) -> list[str]:
    try:
        return split_captions(decode_text(read_small_file(file)), bool(reading.many_lines))
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text (byte {error.start}); save the caption file as UTF-8"
        reading.bad(str(file), reason)
    except OSError as error:
        reading.bad(str(file), f"the caption file can't be read: {error.strerror}")
    return []
