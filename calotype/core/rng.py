"""Randomness as a pure function of (seed, epoch, index, repeat, stream). No global generator is read or set."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from calotype.types import SampleKey

__all__ = ["Stream", "Variant", "drawn_seed", "generator"]

_MASK = (1 << 64) - 1
_VARIANTS: Final = 0x76617269616E7473
"""Takes the place of the seed: variants are the same whatever the seed, which only decides when each is shown."""


class Stream(IntEnum):
    """Independent sources: switching one augmentation on does not change what another draws."""

    CAPTION = 1
    GEOMETRY = 2
    COLOUR = 3
    ORDER = 4
    LATENT_NOISE = 5
    CUSTOM = 6
    IMAGE_VARIANT = 7
    CAPTION_VARIANT = 8


class Variant(NamedTuple):
    """One of the finitely many outcomes that stand for draws without end (crops, colours, orders of caption parts)
    where outcomes are made ahead and kept.

    Its draws depend on what is drawn for and not on its row, epoch or seed: another order of rows or another seed
    finds the same variants again.
    """

    content: int
    """A hash of the image's bytes or the caption's, of which 64 bits count."""
    number: int

    @classmethod
    def drawn(cls, content: int, count: int, key: SampleKey, seed: int, stream: Stream) -> Variant:
        """The one of `count` that a sample shows: each as likely as the others."""
        return cls(content, int(generator(seed, key, stream).integers(count)) if count > 1 else 0)

    def generator(self, stream: Stream) -> np.random.Generator:
        """The generator that makes every draw of one stream for this variant."""
        counter = np.array([0, self.content & _MASK, self.number, 0], dtype=np.uint64)
        return np.random.Generator(_philox(_VARIANTS, stream, counter))


def generator(seed: int, key: SampleKey, stream: Stream) -> np.random.Generator:
    """The generator that makes every draw of one stream for one sample.

    Philox is keyed by (seed, stream) and its 256-bit counter starts at (index, epoch, repeat), so that two
    different samples can never share a draw (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
    """
    return np.random.Generator(_philox(seed & _MASK, stream, _counter(key)))


def drawn_seed(seed: int, key: SampleKey, stream: Stream) -> int:
    """A number below 2**63: what `generator(seed, key, stream).integers(2**63)` gives, in half the time."""
    return int(_philox(seed & _MASK, stream, _counter(key)).random_raw()) >> 1


def _counter(key: SampleKey) -> NDArray[np.uint64]:
    return np.array([0, key.index, key.epoch, key.repeat], dtype=np.uint64)


def _philox(seed: int, stream: Stream, counter: NDArray[np.uint64]) -> np.random.Philox:
    return np.random.Philox(_key(seed, stream), counter=counter)  # type: ignore[arg-type]  # numpy's stubs lack it


@lru_cache(maxsize=64)
def _key(seed: int, stream: Stream) -> _Key:
    return _Key(np.array([seed, stream], dtype=np.uint64))


class _Key(ISeedSequence):
    """Philox's key, handed over as if it were drawn from a seed: `Philox(key=…)` gives the same bits, but asks the
    system for entropy first, which it then does not use and which takes twice as long as all the rest."""

    __slots__ = ("_words",)

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> NDArray[np.uint64]:
        return self._words
