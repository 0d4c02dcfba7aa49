"""Caption files beside images: which belong to an image, and what they hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from calotype.errors import ManifestError
from calotype.manifest.captions import decode_text, split_captions
from calotype.manifest.listing import Listing, stem_of
from calotype.manifest.reading import CAPTION_SUFFIXES, Reading
from calotype.small_files import read_small_file

__all__ = ["caption_files", "sidecar_captions"]


def sidecar_captions(
    folder: Path, listing: Listing, rows: list[str], kohya: dict[str, tuple[float, str]], reading: Reading
) -> list[list[str]]:
    """Captions of the pictures `rows`."""
    beside = set(listing.captions)
    used: set[str] = set()
    captions: list[list[str]] = []
    from_folder = 0
    for name in listing.images:
        stem = stem_of(name)
        used.update(stem + suffix for suffix in CAPTION_SUFFIXES)
        used.update(name + suffix for suffix in CAPTION_SUFFIXES)
    for name in rows:
        own: list[str] = []
        sidecars = caption_files(name, beside.__contains__)
        for sidecar in sidecars:
            own += _read_sidecar(folder / sidecar, reading)
        repeats, class_name = kohya.get(name.partition("/")[0], (None, ""))
        if repeats is not None and not sidecars:  # an empty file is an empty caption, to kohya too
            own = [class_name]
            from_folder += 1
        captions.append(own)
    if from_folder:
        reading.note(f"{from_folder} picture(s) without a caption file are captioned by kohya's folder name")
    for orphan in sorted(beside - used):
        reading.ledger.add("no_picture", str(folder / orphan), "a caption file with no picture beside it")
    return captions


def caption_files(picture: str, is_there: Callable[[str], bool]) -> list[str]:
    """The files beside a picture that hold its captions: `a.jpg.txt`, else `a.txt`; then the same with `.caption`."""
    found = []
    for suffix in CAPTION_SUFFIXES:
        sidecar = picture + suffix if is_there(picture + suffix) else stem_of(picture) + suffix
        if is_there(sidecar):
            found.append(sidecar)
    return found


def _read_sidecar(file: Path, reading: Reading) -> list[str]:
    try:
        return split_captions(decode_text(read_small_file(file)), reading.many_lines)
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text (byte {error.start}); save the caption file as UTF-8"
        reading.bad(str(file), reason)
    except OSError as error:
        raise ManifestError(f"{file}: the caption file can't be read: {error.strerror}") from None
    return []
