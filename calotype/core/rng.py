"""Randomness as a pure function of (seed, epoch, index, repeat, stream). No global generator is read or set."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from calotype.types import SampleKey

__all__ = ["Stream", "Variant", "generator", "sample_seed"]

_MASK = (1 << 64) - 1
_VARIANTS: Final = 0x76617269616E7473
"""Used in place of the seed: variants do not depend on the seed, which only selects among them."""


class Stream(IntEnum):
    """Independent random streams: switching one augmentation on does not change the draws of another."""

    CAPTION = 1
    GEOMETRY = 2
    COLOUR = 3
    ORDER = 4
    LATENT_NOISE = 5
    CUSTOM = 6
    IMAGE_VARIANT = 7
    CAPTION_VARIANT = 8


class Variant(NamedTuple):
    """One of K precomputed outcomes of a continuous augmentation (crop, colour, order of caption parts).

    Its draws depend on the image or caption and the variant's number, not on row, epoch or seed: another order of rows
    or another seed finds the same variants again.
    """

    content: int
    """Hash of the image's or caption's bytes; the low 64 bits are used."""
    number: int

    @classmethod
    def sampled(cls, content: int, count: int, key: SampleKey, seed: int, stream: Stream) -> Variant:
        """Return the variant of a sample, uniform over `count` variants."""
        return cls(content, int(generator(seed, key, stream).integers(count)) if count > 1 else 0)

    def generator(self, stream: Stream) -> np.random.Generator:
        """Return the generator of one stream of this variant."""
        counter = np.array([0, self.content & _MASK, self.number, 0], dtype=np.uint64)
        return np.random.Generator(_philox(_VARIANTS, stream, counter))


def generator(seed: int, key: SampleKey, stream: Stream) -> np.random.Generator:
    """Return the generator of one stream of one sample.

    Philox is keyed by (seed, stream) and its 256-bit counter starts at (index, epoch, repeat), so that two
    different samples can never share a draw (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
    """
    return np.random.Generator(_philox(seed & _MASK, stream, _counter(key)))


def sample_seed(seed: int, key: SampleKey, stream: Stream) -> int:
    """Return an integer below 2**63, equal to `generator(seed, key, stream).integers(2**63)`, in half the time."""
    return int(_philox(seed & _MASK, stream, _counter(key)).random_raw()) >> 1


def _counter(key: SampleKey) -> NDArray[np.uint64]:
    return np.array([0, key.index, key.epoch, key.repeat], dtype=np.uint64)


def _philox(seed: int, stream: Stream, counter: NDArray[np.uint64]) -> np.random.Philox:
    return np.random.Philox(_key(seed, stream), counter=counter)  # type: ignore[arg-type]  # numpy's stubs lack it


@lru_cache(maxsize=64)
def _key(seed: int, stream: Stream) -> _Key:
    return _Key(np.array([seed, stream], dtype=np.uint64))


class _Key(ISeedSequence):
    """Philox's key, passed as a seed sequence: `Philox(key=…)` gives the same bits, but first reads entropy from the
    system, which it does not use and which takes twice as long as the rest."""

    __slots__ = ("_words",)

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> NDArray[np.uint64]:
        return self._words
