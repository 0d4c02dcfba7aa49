"""Findings about duplicates: equal files, equal pixels, near duplicates, and leaks of validation images."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from calotype.check.facts import Facts
from calotype.check.near import pairs_within
from calotype.check.report import Finding, finding

__all__ = ["NEAR", "duplicate_findings"]

NEAR: Final = 6
"""Maximum Hamming distance between the 64-bit perceptual hashes of near duplicates.

Measured with `imagehash.phash` on 26 images of scikit-image, each against a changed copy of itself:

- Re-encoded as JPEG (quality 40 to 95), at 1/2 or 1/4 of the size, in grey, 20 % brighter or with less contrast: 9 of
  10 copies are within 3 bits (a synthetic chessboard reaches 11).
- With 2 % cropped off each side: half of the copies are within 6 bits.
- Different scenes are at least 20 bits apart; the two views of one stereo pair are 4 apart.

`tests/check/test_duplicates.py` repeats the measurement."""

_FLAT: Final = 16
"""Minimum number of set bits, and of unset bits, in a usable hash. About half of the 64 bits are set for an image with
structure; the hash of a flat image does not identify it."""


def duplicate_findings(
    ids: Sequence[str],
    facts: Sequence[Facts],
    *,
    held_out_ids: Sequence[str] = (),
    held_out: Sequence[Facts] = (),
    distance: int = NEAR,
) -> list[Finding]:
    """Return one finding for each group of duplicates or near duplicates, and one for each leaked image.

    A group is reported at its strongest level (file, pixels, near); `where` is its first image. A training image that
    duplicates a held-out one is reported as a leak. Facts from a scan without `deep` find equal files only. Images that
    training can't use are skipped.

    Args:
        ids: Row ids of the training images.
        facts: Facts of the training images.
        held_out_ids: Row ids of the validation images.
        held_out: Facts of the validation images.
        distance: Maximum Hamming distance between the perceptual hashes of near duplicates, 0 to 15.
    """
    # One index space: training images first, held-out images from `split` on.
    names = [*ids, *held_out_ids]
    every = [*facts, *held_out]
    good = [place for place, one in enumerate(every) if one.problem is None]
    found = _Duplicates(
        names=names,
        split=len(ids),
        files=_groups((place, every[place].content) for place in good),
        pixels=_groups((place, every[place].pixels) for place in good),
        near=_near(every, good, distance),
    )
    return [*_leaks(found), *_within(found, every)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Duplicates:
    """Groups of equal images, as indices: training images first, held-out images from `split` on."""

    names: Sequence[str]
    split: int
    files: list[list[int]]
    """Groups with the same bytes."""
    pixels: list[list[int]]
    """Groups with the same pixels."""
    near: list[tuple[list[int], list[int], int]]
    """From `_near`."""


def _groups(keyed: Iterable[tuple[int, Hashable | None]]) -> list[list[int]]:
    """Return the groups of at least two indices with equal keys, each in order."""
    groups: dict[Hashable, list[int]] = {}
    for place, key in keyed:
        if key is not None:
            groups.setdefault(key, []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def _near(every: Sequence[Facts], good: Sequence[int], distance: int) -> list[tuple[list[int], list[int], int]]:
    """Return (indices with one hash, indices with another, distance in bits); 0 for indices with equal hashes."""
    owners: dict[int, list[int]] = {}
    for place in good:
        phash = every[place].phash
        if phash is not None and _FLAT <= phash.bit_count() <= 64 - _FLAT:
            owners.setdefault(phash, []).append(place)
    same = [(group, group, 0) for group in owners.values() if len(group) > 1]
    groups = list(owners.values())
    pairs, bits = pairs_within(np.array(list(owners), np.uint64), distance)
    others = zip(pairs.tolist(), bits.tolist(), strict=True)
    return [*same, *((groups[one], groups[two], apart) for (one, two), apart in others)]


def _leaks(found: _Duplicates) -> Iterator[Finding]:
    """Yield a finding for each training image that duplicates a held-out one."""
    leaks: dict[int, dict[int, str]] = {}

    def cross(left: Iterable[int], right: Iterable[int], words: str) -> None:
        theirs = [place for place in right if place >= found.split]
        for ours in left:
            if ours < found.split and theirs:
                known = leaks.setdefault(ours, {})
                known |= {place: words for place in theirs if place not in known}

    for group in found.files:
        cross(group, group, "the same file as")
    for group in found.pixels:
        cross(group, group, "the same pixels as")
    for left, right, bits in sorted(found.near, key=lambda pair: pair[2]):
        words = f"{bits} of 64 bits of its perceptual hash away from"
        cross(left, right, words)
        cross(right, left, words)
    for ours in sorted(leaks):
        known = leaks[ours]
        first = next(iter(known))
        detail = f"it is {known[first]} {found.names[first]}, which is validated with"
        yield finding("leak", found.names[ours], detail, others=tuple(found.names[place] for place in known))


class _Sets:
    """Disjoint sets of indices (union-find); the head of a set is its smallest index."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def head(self, place: int) -> int:
        while (above := self._parent.get(place, place)) != place:
            self._parent[place] = place = self._parent.get(above, above)
        return place

    def heads(self, places: Iterable[int]) -> list[int]:
        return sorted({self.head(place) for place in places})

    def join(self, places: Sequence[int]) -> None:
        first, *others = self.heads(places)
        self._parent |= dict.fromkeys(others, first)


def _within(found: _Duplicates, every: Sequence[Facts]) -> Iterator[Finding]:
    """Yield the groups of training images. A group of a stronger level counts as one image at weaker levels."""
    # Equal files, then equal pixels.
    same = _Sets()
    for group in found.files:
        ours = [place for place in group if place < found.split]
        if len(ours) > 1:
            header = every[ours[0]].header
            length = f"{header.bytes:,} " if header is not None else ""
            yield _group("same_file", found.names, ours, f"the same {length}bytes")
            same.join(ours)
    for group in found.pixels:
        ours = same.heads(place for place in group if place < found.split)
        if len(ours) > 1:
            formats = sorted({one.format for place in ours if (one := every[place].header) is not None})
            yield _group("same_pixels", found.names, ours, f"the same pixels, as {' and '.join(formats)}")
            same.join(ours)
    # Near duplicates: connected components, joined by increasing distance.
    close = _Sets()
    steps: dict[int, int] = {}
    for left, right, bits in sorted(found.near, key=lambda pair: pair[2]):
        ours = same.heads(place for place in (*left, *right) if place < found.split)
        if len(heads := close.heads(ours)) > 1:
            close.join(heads)
            steps[heads[0]] = bits  # increasing: the last value is the largest of the group
    groups: dict[int, list[int]] = {}
    members = {
        place for left, right, _ in found.near for place in same.heads(p for p in (*left, *right) if p < found.split)
    }
    for place in sorted(members):
        groups.setdefault(close.head(place), []).append(place)
    for head, group in groups.items():
        if len(group) > 1:
            detail = f"perceptual hashes {steps[head]} of 64 bits apart"
            yield _group(
                "near_duplicate",
                found.names,
                group,
                detail if len(group) == 2 else f"{detail} or less, one to the next",
            )


def _group(kind: str, names: Sequence[str], places: Sequence[int], detail: str) -> Finding:
    return finding(kind, names[places[0]], detail, others=tuple(names[place] for place in places[1:]))
