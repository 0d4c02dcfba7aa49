"""`Permutation`: a pseudo-random shuffle with random access; a table if small, else computed in O(1) memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Permutation"]

_TABLE = 1 << 16
"""Maximum length of a table (0.5 MB, built in under 2 ms). Its look-ups are faster, and every order is equally likely;
a Feistel network over few numbers is slightly biased."""

_ROUNDS = 6
_MULTIPLIERS = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)  # SplitMix64's finaliser


class Permutation:
    """A pseudo-random permutation of `range(n)`.

    For large n it is a Feistel network with cycle walking. A balanced network permutes the `2**(2h)` numbers of two
    h-bit halves with any round function (Luby & Rackoff, 1988). A result outside `range(n)` passes through the network
    again until it is inside, which keeps it a permutation (Black & Rogaway, "Ciphers with arbitrary finite domains",
    2002). The domain is less than 4n, so fewer than four passes are expected.

    Args:
        n: Number of integers to permute, at least 1.
        *key: Non-negative integers that seed it. Different keys have independent permutations.
    """

    def __init__(self, n: int, *key: int) -> None:
        self.n = n
        seed = np.random.SeedSequence(key)
        self._table = np.random.Generator(np.random.Philox(seed)).permutation(n) if n <= _TABLE else None
        self._half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        self._keys = seed.generate_state(_ROUNDS, np.uint64)

    def __call__(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the image of each position under the permutation.

        Args:
            positions: Integers in `range(n)`, of any shape.

        Returns:
            int64 of the same shape, in `range(n)`.
        """
        if self._table is not None:
            return np.asarray(self._table[np.asarray(positions)], dtype=np.int64)
        asked = np.asarray(positions, dtype=np.uint64)
        x = self._pass(np.atleast_1d(asked))  # numpy warns of overflow for scalars only; overflow is intended here
        while (outside := x >= self.n).any():
            x[outside] = self._pass(x[outside])
        return x.astype(np.int64).reshape(asked.shape)

    def _pass(self, x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Apply the Feistel network once: a permutation of `range(2**(2h))`."""
        left, right = x >> self._half, x & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right + key) & self._mask)
        return np.asarray((left << self._half) | right)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Hash 64-bit integers: SplitMix64's finaliser (Steele, Lea & Flood, "Fast splittable pseudorandom number
    generators", 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _MULTIPLIERS[0]
    x = (x ^ (x >> np.uint64(27))) * _MULTIPLIERS[1]
    return x ^ (x >> np.uint64(31))
