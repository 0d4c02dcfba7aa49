"""Splits by name: `train/`, `validation/`, `test/` folders, and data files that carry such a name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from calotype.errors import ManifestError
from calotype.manifest.file_kinds import METADATA
from calotype.manifest.folders.listing import Listing
from calotype.manifest.reading import Reading

__all__ = ["ALL", "DEFAULT_SPLIT_NOTE", "of_split", "split_named"]

ALL = "all"
"""The split that is everything, as `datasets` has it."""

DEFAULT_SPLIT_NOTE = "split 'train' was taken"
"""How the note begins that says so where nobody chose."""

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_WORDS = "|".join(f"(?P<{split}>{'|'.join(words)})" for split, words in _SPLITS.items())
_MORE = r"(?:[-_ ]?(?:set|split|data|images?|imgs?|(?:19|20)\d\d))?"
"""What folders have behind it: `train2017/`, `test_set/`."""
_FOLDER = re.compile(rf"(?:^|.*?/)(?:{_WORDS}){_MORE}/", re.IGNORECASE)
_FILE = re.compile(rf"(?:^|.*?[/._-])(?:{_WORDS})(?=[/._-])", re.IGNORECASE)


def split_named(word: str) -> str | None:
    """The split that a word stands for: `train`, `validation` or `test`."""
    return next((split for split, words in _SPLITS.items() if word.strip().lower() in words), None)


def of_split(folder: Path, listing: Listing, reading: Reading) -> Listing:
    """What belongs to the split to be read: files below a folder of its name, or data files that carry its name.

    Without `reading.split` it is `train` where the folder has that and others, as for datasets of the hub.

    Raises:
        ManifestError: There is no such split; or there are several, none of them `train`, and nobody chose.
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
    reading.note(f"{DEFAULT_SPLIT_NOTE} of {found}; split='{ALL}' takes all")
    kinds = {PurePosixPath(name).suffix.lower() for name in names if split_of(name) is not None}
    for name in names:
        if split_of(name) is None and (listing.images or PurePosixPath(name).suffix.lower() in kinds):
            reason = "in none of the folder's splits, of which train was taken; split='all' takes all"
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
    images = _those(listing.images, below.match)
    chosen = Listing(
        images=images,
        captions=_those(listing.captions, below.match),
        data=_those(listing.data, lambda name: pattern.search(name) or (images and _is_shared_metadata(name))),
        others=_those(listing.others, below.match),
        other_splits=sorted({*listing.images}.difference(images)) if images else [],
    )
    if not chosen.images and not chosen.data:
        if split == "train" and not any(map(_split_of_file, (*listing.images, *listing.data))):
            return listing  # no splits at all: everything is for training, as `datasets` has it
        raise ManifestError(
            f"{folder}: no split {split!r}; expected a folder or data files named {' or '.join(words)} in it. "
            "For a split of its images by hash use validation=0.05"
        )
    return chosen


def _those(names: Sequence[str], wanted: Callable[[str], object]) -> list[str]:
    return [name for name in names if wanted(name)]


def _is_shared_metadata(name: str) -> bool:
    """A metadata file above the splits, which lists the images of them all."""
    return PurePosixPath(name).name.lower() in METADATA and _split_of_image(name) is None
