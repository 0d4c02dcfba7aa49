"""Splits by name: folders `train/`, `validation/`, `test/`, and data files with such a name."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath

from calotype.errors import ManifestError
from calotype.manifest.file_kinds import METADATA
from calotype.manifest.folders.listing import Listing
from calotype.manifest.reading import Reading

__all__ = ["ALL", "DEFAULT_SPLIT_NOTE", "select_split_files", "split_named"]

ALL = "all"
"""The split with all rows, as in `datasets`."""

DEFAULT_SPLIT_NOTE = "split 'train' was read"
"""Beginning of the note that reports the default split."""

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_WORDS = "|".join(f"(?P<{split}>{'|'.join(words)})" for split, words in _SPLITS.items())
_MORE = r"(?:[-_ ]?(?:set|split|data|images?|imgs?|(?:19|20)\d\d))?"
"""Suffixes of split names in names of folders: `train2017/`, `test_set/`."""
_FOLDER = re.compile(rf"(?:^|.*?/)(?:{_WORDS}){_MORE}/", re.IGNORECASE)
_FILE = re.compile(rf"(?:^|.*?[/._-])(?:{_WORDS})(?=[/._-])", re.IGNORECASE)


def split_named(word: str) -> str | None:
    """Return the split that a word names: `train`, `validation` or `test`; None if it names none."""
    return next((split for split, words in _SPLITS.items() if word.strip().lower() in words), None)


def select_split_files(folder: Path, listing: Listing, reading: Reading) -> Listing:
    """Select the files of the requested split: those below a folder of its name, or data files with its name.

    Without `reading.split` that is `train` if the folder has it and others, as for hub datasets.

    Raises:
        ManifestError: There is no such split; or there are several, none of them `train`, and none is requested.
    """
    if reading.split == ALL:
        return listing
    if reading.split is not None:
        return _chosen(folder, listing, reading.split)
    names, split_of = (listing.images, _split_of_image) if listing.images else (listing.data, _split_of_file)
    counts = Counter(split_of(name) for name in names)
    splits = [split for split in _SPLITS if counts[split]]
    if len(splits) < 2:
        return listing
    found = ", ".join(f"{split} ({counts[split]:,} {'images' if listing.images else 'files'})" for split in splits)
    if "train" not in splits:
        raise ManifestError(f"{folder}: found the splits {found}; choose one with split=, or all with split='{ALL}'")
    reading.note(f"{DEFAULT_SPLIT_NOTE} of {found}; split='{ALL}' reads all")
    kinds = {PurePosixPath(name).suffix.lower() for name in names if split_of(name) is not None}
    for name in names:
        if split_of(name) is None and (listing.images or PurePosixPath(name).suffix.lower() in kinds):
            reason = "in none of the folder's splits, of which train was read; split='all' reads all"
            reading.ledger.add("no_split", str(folder / name), reason)
    return _chosen(folder, listing, "train")


def _split_of_image(name: str) -> str | None:
    return _named(_FOLDER.match(name))


def _split_of_file(name: str) -> str | None:
    return _named(_FILE.match(name))


def _named(match: re.Match[str] | None) -> str | None:
    return match.lastgroup if match else None


def _chosen(folder: Path, listing: Listing, split: str) -> Listing:
    words = next((names for names in _SPLITS.values() if split in names), (split,))
    pattern = re.compile(rf"(?:^|[/._-])(?:{'|'.join(map(re.escape, words))})(?=[/._-])", re.IGNORECASE)
    below = re.compile(rf"(?:^|.*/)(?:{'|'.join(map(re.escape, words))}){_MORE}/", re.IGNORECASE)
    images = list(filter(below.match, listing.images))
    chosen = Listing(
        images=images,
        captions=list(filter(below.match, listing.captions)),
        data=[name for name in listing.data if pattern.search(name) or (images and _is_shared_metadata(name))],
        others=list(filter(below.match, listing.others)),
        other_splits=sorted({*listing.images}.difference(images)) if images else [],
    )
    if not chosen.images and not chosen.data:
        if split == "train" and not any(map(_split_of_file, (*listing.images, *listing.data))):
            return listing  # without splits, everything is for training, as in `datasets`
        raise ManifestError(
            f"{folder}: no split {split!r}; expected a folder or data files named {' or '.join(words)} in it. "
            "For a split of its images by hash use validation=0.05"
        )
    return chosen


def _is_shared_metadata(name: str) -> bool:
    """Whether it is a metadata file above the splits, which lists the images of all splits."""
    return PurePosixPath(name).name.lower() in METADATA and _split_of_image(name) is None
