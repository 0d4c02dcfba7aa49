"""Badges: what to look at first, found in the samples of a preview."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import xxhash

from calotype.previews.views import BatchView, Pixels, SampleView

__all__ = ["BADGES", "Badge", "find_badges", "verdict"]

_KEPT: Final = 2 / 3
"""Share of an image's area; less of it is cropped by more than a third."""


@dataclass(frozen=True, slots=True)
class Badge:
    """Something about a sample that may spoil training."""

    key: str
    label: str
    """On one sample."""
    one: str
    many: str
    """After the number of samples that have it."""
    none: str = ""
    """Where no sample has it; empty for what is rare enough not to be missed."""

    def counted(self, number: int) -> str:
        """Return the number of samples in words: `2 captions cut`."""
        return f"{number:,} {self.one if number == 1 else self.many}"


BADGES: Final = (
    Badge("enlarged", "enlarged", "enlarged", "enlarged", "none enlarged"),
    Badge(
        "cropped",
        "cropped",
        "cropped by more than a third",
        "cropped by more than a third",
        "none cropped by more than a third",
    ),
    Badge("caption-cut", "caption cut", "caption cut", "captions cut", "no caption cut"),
    Badge("no-caption", "no caption", "without a caption", "without a caption", "none without a caption"),
    Badge("duplicate", "duplicate", "duplicate", "duplicates", "no duplicates"),
    Badge("stand-in", "stand-in", "in place of an unreadable image", "in place of unreadable images"),
    Badge("not-repeatable", "not repeatable", "not repeatable", "not repeatable"),
)
"""All badges, in the order of the page."""

_BY_KEY: Final = {badge.key: badge for badge in BADGES}


def find_badges(batches: Sequence[BatchView]) -> list[list[tuple[Badge, ...]]]:
    """Return the badges of each sample of each batch.

    Duplicates are different rows whose images have the same pixels; only the samples of the preview are compared.
    """
    owners: dict[int, set[int]] = {}
    hashes = [[_hash(sample.original) for sample in batch.samples] for batch in batches]
    for batch, batch_hashes in zip(batches, hashes, strict=True):
        for sample, pixels in zip(batch.samples, batch_hashes, strict=True):
            owners.setdefault(pixels, set()).add(sample.key.index)
    return [
        [
            _badges(sample, duplicate=len(owners[pixels]) > 1)
            for sample, pixels in zip(batch.samples, batch_hashes, strict=True)
        ]
        for batch, batch_hashes in zip(batches, hashes, strict=True)
    ]


def verdict(found: Sequence[Sequence[tuple[Badge, ...]]]) -> tuple[list[tuple[Badge, int]], list[str]]:
    """Return the badges that samples have, with the numbers of samples; and in words which ones none has."""
    counts = Counter(badge.key for batch in found for badges in batch for badge in badges)
    return (
        [(badge, counts[badge.key]) for badge in BADGES if counts[badge.key]],
        [badge.none for badge in BADGES if badge.none and not counts[badge.key]],
    )


def _badges(sample: SampleView, *, duplicate: bool) -> tuple[Badge, ...]:
    geometry = sample.geometry
    (height, width), (_, _, rows, columns) = geometry.original_size, geometry.box
    has = {
        "enlarged": geometry.scale > 1.0,
        "cropped": rows * columns < _KEPT * height * width,
        "caption-cut": any(piece.kind == "cut" for view in sample.tokens for piece in view.pieces),
        "no-caption": not sample.caption.raw.strip(),
        "duplicate": duplicate,
        "stand-in": sample.stands_in_for is not None,
        "not-repeatable": not sample.repeatable,
    }
    return tuple(_BY_KEY[key] for key, found in has.items() if found)


def _hash(pixels: Pixels) -> int:
    return xxhash.xxh3_64_intdigest(pixels.tobytes(), seed=pixels.shape[1])
