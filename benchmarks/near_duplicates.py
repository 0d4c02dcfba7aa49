"""How long does finding all near-duplicate perceptual hashes take, compared with all pairs?

python benchmarks/near_duplicates.py
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import numpy.typing as npt

from calotype.check.duplicates import NEAR
from calotype.check.near import pairs_within

ROUNDS = 3
BRUTE_FORCE = 30_000
"""Hashes up to which each is compared with each: beyond, it would take minutes."""


def planted(count: int) -> npt.NDArray[np.uint64]:
    """Random hashes; one in a hundred is another one with three bits flipped."""
    rng = np.random.default_rng(count)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    copies = count // 100
    hashes[-copies:] = hashes[:copies] ^ np.uint64(0b1_0000_0001_0000_0001)
    return np.unique(hashes)


def brute_force(hashes: npt.NDArray[np.uint64]) -> int:
    """One row of the table of all pairs at a time, in numpy."""
    return sum(int((np.bitwise_count(hashes[row + 1 :] ^ hashes[row]) <= NEAR).sum()) for row in range(len(hashes) - 1))


def main() -> None:
    print(f"all pairs at most {NEAR} of 64 bits apart, one thread, median of {ROUNDS}")
    print(f"{'hashes':>10} {'pairs':>8} {'seconds':>9} {'each with each':>15} {'ratio':>7}")
    for count in (10_000, 30_000, 100_000, 1_000_000):
        hashes = planted(count)
        ours, theirs, found = [], [], 0
        for _ in range(ROUNDS):
            start = time.perf_counter()
            found = len(pairs_within(hashes, NEAR)[0])
            ours.append(time.perf_counter() - start)
            if count <= BRUTE_FORCE:
                start = time.perf_counter()
                assert brute_force(hashes) == found
                theirs.append(time.perf_counter() - start)
        seconds = statistics.median(ours)
        slow = (
            f"{statistics.median(theirs):15.2f} {statistics.median(theirs) / seconds:7.1f}" if theirs else f"{'-':>15}"
        )
        print(f"{count:>10,} {found:>8,} {seconds:>9.2f} {slow}")


if __name__ == "__main__":
    main()
