"""A shuffle that can be asked for any position: stored while it is small, computed in O(1) memory when it is not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Permutation"]

_TABLE = 1 << 16
"""Up to here the shuffle is a stored table (0.5 MB, under 2 ms): quicker to ask, and every order is equally likely,
which a Feistel network over a handful of numbers falls a little short of."""

_ROUNDS = 6
_MULTIPLIERS = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)  # of SplitMix64's finaliser


class Permutation:
    """A pseudo-random permutation of `range(n)`.

    A large one is a Feistel network with cycle walking. A balanced network permutes the `2**(2h)` numbers of two
    h-bit halves whatever its round function is (Luby & Rackoff, 1988); a result outside `range(n)` is sent through
    again until it falls inside, which keeps it a permutation (Black & Rogaway, "Ciphers with arbitrary finite
    domains", 2002). The domain is less than 4n, so fewer than four passes are expected.

    Args:
        n: How many numbers to permute, at least 1.
        *key: Non-negative integers; each key gives a permutation of its own.
    """

    def __init__(self, n: int, *key: int) -> None:
        self.n = n
        seed = np.random.SeedSequence(key)
        self._table = np.random.Generator(np.random.Philox(seed)).permutation(n) if n <= _TABLE else None
        self._half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        self._keys = seed.generate_state(_ROUNDS, np.uint64)

    def __call__(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Where each position (an integer in `range(n)`) is sent. Any shape; int64 of the same shape."""
        if self._table is not None:
            return np.asarray(self._table[np.asarray(positions)], dtype=np.int64)
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
