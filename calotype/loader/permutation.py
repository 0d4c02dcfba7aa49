"""A shuffle that is computed, never stored: position → position, in O(1) memory at any size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Permutation"]

_ROUNDS = 6
_MULTIPLIERS = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)  # of SplitMix64's finaliser


class Permutation:
    """A pseudo-random permutation of `range(n)`: a Feistel network with cycle walking.

    A balanced Feistel network permutes the `2**(2h)` numbers of two h-bit halves whatever its round function is
    (Luby & Rackoff, 1988); a result outside `range(n)` is sent through again until it falls inside, which keeps it a
    permutation (Black & Rogaway, "Ciphers with arbitrary finite domains", 2002). The domain is less than 4n, so
    fewer than four passes are expected.

    Args:
        n: How many numbers to permute, at least 1.
        *key: Non-negative integers; each key gives a permutation of its own.
    """

    def __init__(self, n: int, *key: int) -> None:
        self.n = n
        self._half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        self._keys = np.random.SeedSequence(key).generate_state(_ROUNDS, np.uint64)

    def __call__(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Where each position (an integer in `range(n)`) is sent. Any shape; int64 of the same shape."""
        asked = np.asarray(positions, dtype=np.uint64)
        x = self._pass(np.atleast_1d(asked))  # numpy warns of overflow for scalars, which is meant to happen here
        while (outside := x >= self.n).any():
            x[outside] = self._pass(x[outside])
        return x.astype(np.int64).reshape(asked.shape)

    def _pass(self, x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        left, right = x >> self._half, x & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right + key) & self._mask)
        return np.asarray((left << self._half) | right)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _MULTIPLIERS[0]
    x = (x ^ (x >> np.uint64(27))) * _MULTIPLIERS[1]
    return x ^ (x >> np.uint64(31))
