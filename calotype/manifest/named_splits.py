"""Splits by name: `train/`, `validation/`, `test/` folders, and data files that carry such a name."""

from __future__ import annotations

import re
from pathlib import Path

from calotype.errors import ManifestError
from calotype.manifest.listing import Listing

__all__ = ["of_split"]

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def of_split(folder: Path, listing: Listing, split: str) -> Listing:
    """What belongs to a split: files below a folder of its name, or data files that carry its name."""
    words = next((names for names in _SPLITS.values() if split in names), (split,))
    pattern = re.compile(rf"(?:^|[/._-])(?:{'|'.join(map(re.escape, words))})(?=[/._-])", re.IGNORECASE)
    below = re.compile(rf"(?:^|.*/)(?:{'|'.join(map(re.escape, words))})/", re.IGNORECASE)
    chosen = Listing(
        images=[name for name in listing.images if below.match(name)],
        captions=[name for name in listing.captions if below.match(name)],
        data=[name for name in listing.data if pattern.search(name)],
    )
    if not chosen.images and not chosen.data:
        named = "|".join(map(re.escape, (word for several in _SPLITS.values() for word in several)))
        anywhere = re.compile(rf"(?:^|[/._-])(?:{named})[/._-]", re.IGNORECASE)
        if split == "train" and not any(anywhere.search(name) for name in (*listing.images, *listing.data)):
            return listing  # no splits at all: everything is for training, as `datasets` has it
        raise ManifestError(
            f"{folder}: no split {split!r}; expected a folder or data files named {' or '.join(words)} in it. "
            "For a split of its pictures by hash use validation=0.05"
        )
    return chosen
