"""Images that come twice: the same file, the same pixels, or nearly the same image; and leaks into validation."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from calotype.check.facts import Facts
from calotype.check.near import pairs_within
from calotype.check.report import Finding, finding

__all__ = ["NEAR", "duplicate_findings"]

NEAR: Final = 6
"""Bits of 64 in which the perceptual hashes of nearly equal images may differ.

Measured on 26 images of scikit-image with `imagehash.phash`: saved again as JPEG (quality 40 to 95), at half or a
quarter of the size, in grey, a fifth brighter or with less contrast, nine in ten stay within 3 bits (a drawn chessboard
goes to 11); with 2 % cropped off each side half are within 6; the closest of two different scenes are 20 apart, and
two views of one stereo pair 4. `tests/check/test_duplicates.py` repeats it."""

_FLAT: Final = 16
"""An image with structure sets about half of the 64 bits; fewer than this, or more than 64 less this, is a flat one,
whose hash says nothing."""


def duplicate_findings(
    ids: Sequence[str],
    facts: Sequence[Facts],
    *,
    held_out_ids: Sequence[str] = (),
    held_out: Sequence[Facts] = (),
    distance: int = NEAR,
) -> list[Finding]:
    """One finding for each group of equal or nearly equal images, at its strongest level, the first one leading.

    An image that is (nearly) one of the held-out ones is a leak instead. Without a deep look only equal files are
    found. Images that can't be used are left aside.

    Args:
        ids: Of the images to train on.
        facts: Of the same.
        held_out_ids: Of those to validate with.
        held_out: Of the same.
        distance: Bits in which perceptual hashes may differ.
    """
    names = [*ids, *held_out_ids]
    every = [*facts, *held_out]
    good = [place for place, one in enumerate(every) if one.problem is None]
    files = _groups((place, every[place].content) for place in good)
    pixels = _groups((place, every[place].pixels) for place in good)
    near = _near(every, good, distance)
    split = len(ids)
    return [*_leaks(names, every, split, files, pixels, near), *_within(names, every, split, files, pixels, near)]


def _groups(keyed: Iterable[tuple[int, Hashable | None]]) -> list[list[int]]:
    """Places with equal keys, in order, where there are several."""
    groups: dict[Hashable, list[int]] = {}
    for place, key in keyed:
        if key is not None:
            groups.setdefault(key, []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def _near(every: Sequence[Facts], good: Sequence[int], distance: int) -> list[tuple[list[int], list[int], int]]:
    """(places with one hash, places with another, bits between them); places with one and the same hash as 0 bits."""
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


def _leaks(
    names: Sequence[str],
    every: Sequence[Facts],
    split: int,
    files: list[list[int]],
    pixels: list[list[int]],
    near: list[tuple[list[int], list[int], int]],
) -> Iterator[Finding]:
    """A finding for each image to train on that is also validated with."""
    leaks: dict[int, dict[int, str]] = {}

    def cross(left: Iterable[int], right: Iterable[int], words: str) -> None:
        theirs = [place for place in right if place >= split]
        for ours in left:
            if ours < split and theirs:
                known = leaks.setdefault(ours, {})
                known |= {place: words for place in theirs if place not in known}

    for group in files:
        cross(group, group, "the same file as")
    for group in pixels:
        cross(group, group, "the same pixels as")
    for left, right, bits in sorted(near, key=lambda pair: pair[2]):
        words = f"{bits} of 64 bits of its perceptual hash away from"
        cross(left, right, words)
        cross(right, left, words)
    for ours in sorted(leaks):
        known = leaks[ours]
        first = next(iter(known))
        detail = f"it is {known[first]} {names[first]}, which is validated with"
        yield finding("leak", names[ours], detail, others=tuple(names[place] for place in known))


class _Sets:
    """Places that belong together; the smallest of each set is its head."""

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


def _within(
    names: Sequence[str],
    every: Sequence[Facts],
    split: int,
    files: list[list[int]],
    pixels: list[list[int]],
    near: list[tuple[list[int], list[int], int]],
) -> Iterator[Finding]:
    """Groups among the images to train on; what a stronger level brought together stands for one image."""
    same = _Sets()
    for group in files:
        ours = [place for place in group if place < split]
        if len(ours) > 1:
            header = every[ours[0]].header
            length = f"{header.bytes:,} " if header is not None else ""
            yield _group("same_file", names, ours, f"the same {length}bytes")
            same.join(ours)
    for group in pixels:
        ours = same.heads(place for place in group if place < split)
        if len(ours) > 1:
            formats = sorted({one.format for place in ours if (one := every[place].header) is not None})
            yield _group("same_pixels", names, ours, f"the same pixels, as {' and '.join(formats)}")
            same.join(ours)
    close = _Sets()
    steps: dict[int, int] = {}
    for left, right, bits in sorted(near, key=lambda pair: pair[2]):
        ours = same.heads(place for place in (*left, *right) if place < split)
        if len(heads := close.heads(ours)) > 1:
            close.join(heads)
            steps[heads[0]] = bits  # in rising order: the last one is the widest
    groups: dict[int, list[int]] = {}
    members = {place for left, right, _ in near for place in same.heads(p for p in (*left, *right) if p < split)}
    for place in sorted(members):
        groups.setdefault(close.head(place), []).append(place)
    for head, group in groups.items():
        if len(group) > 1:
            detail = f"perceptual hashes {steps[head]} of 64 bits apart"
            yield _group(
                "near_duplicate", names, group, detail if len(group) == 2 else f"{detail} or less, one to the next"
            )


def _group(kind: str, names: Sequence[str], places: Sequence[int], detail: str) -> Finding:
    return finding(kind, names[places[0]], detail, others=tuple(names[place] for place in places[1:]))
