"""Finds all pairs of 64-bit hashes within a Hamming distance, exactly and without comparing every pair."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["pairs_within"]

_BANDS: Final = 4
_BITS: Final = 64 // _BANDS
_CHUNK: Final = 1 << 22
"""Pairs compared at a time: at most 100 MB of memory."""

Pairs = npt.NDArray[np.int64]


def pairs_within(hashes: npt.NDArray[np.uint64], distance: int) -> tuple[Pairs, npt.NDArray[np.uint8]]:
    """Return the pairs of hashes whose Hamming distance is at most `distance`.

    Two hashes that differ in at most d bits differ in at most d // 4 bits of one of their four 16-bit bands (pigeonhole
    principle). Only pairs with such a band are compared: for d up to 7, one in a thousand pairs of a million random
    hashes.

    Args:
        hashes: uint64 (N,), distinct; equal hashes would be returned as pairs.
        distance: Maximum Hamming distance in bits, 0 to 15.

    Returns:
        Indices, int64 (P, 2), sorted, the smaller one first, each pair once; and their distances, uint8 (P,).
    """
    if not 0 <= distance < 16:
        raise ValueError(f"distance: found {distance}, expected 0 to 15")
    found: list[Pairs] = [np.empty((0, 2), np.int64)]
    for band in range(_BANDS):
        quarter = ((hashes >> np.uint64(band * _BITS)) & np.uint64((1 << _BITS) - 1)).astype(np.int64)
        order = np.argsort(quarter, kind="stable")
        for left, right in _candidates(quarter[order], distance // _BANDS):
            first, second = order[left], order[right]
            near = np.bitwise_count(hashes[first] ^ hashes[second]) <= distance
            found.append(np.stack([first[near], second[near]], axis=1))
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return pairs, np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])


def _candidates(values: npt.NDArray[np.int64], radius: int) -> Iterator[tuple[Pairs, Pairs]]:
    """Yield positions (P,), (P,) of sorted `values` (N,) that differ in at most `radius` bits, in chunks."""
    starts = np.searchsorted(values, np.arange((1 << _BITS) + 1))
    here = np.arange(len(values))
    for flipped in range(radius + 1):
        for bits in combinations(range(_BITS), flipped):
            partners = values ^ sum(1 << bit for bit in bits)
            # Yield each pair once: equal values from the earlier position, others from the smaller value.
            begin = np.where(partners == values, here + 1, starts[partners])
            count = np.where(partners >= values, starts[partners + 1] - begin, 0)
            yield from _expand(here, begin, count)


def _expand(here: Pairs, begin: Pairs, count: Pairs) -> Iterator[tuple[Pairs, Pairs]]:
    """Yield the pairs (here[i], begin[i] + k) for all k < count[i], in chunks of about `_CHUNK` pairs."""
    busy = np.flatnonzero(count)
    ends = np.cumsum(count[busy])
    done = 0
    while done < len(busy):
        base = ends[done - 1] if done else 0
        stop = max(done + 1, int(np.searchsorted(ends, base + _CHUNK, side="right")))
        some = busy[done:stop]
        left = np.repeat(here[some], count[some])
        offset = np.arange(len(left)) - np.repeat(ends[done:stop] - count[some] - base, count[some])
        yield left, np.repeat(begin[some], count[some]) + offset
        done = stop
