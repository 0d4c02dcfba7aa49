"""Randomness as a pure function of (seed, epoch, index, repeat, stream). No global generator is read or set."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from calotype.types import SampleKey

__all__ = ["Stream", "generator"]

_MASK = (1 << 64) - 1


class Stream(IntEnum):
    """Independent sources: switching one augmentation on does not change what another draws."""

    CAPTION = 1
    GEOMETRY = 2
    COLOUR = 3
    ORDER = 4
    LATENT_NOISE = 5
    CUSTOM = 6


def generator(seed: int, key: SampleKey, stream: Stream) -> np.random.Generator:
    """The generator that makes every draw of one stream for one sample.

    Philox is keyed by (seed, stream) and its 256-bit counter starts at (index, epoch, repeat), so that two
    different samples can never share a draw (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
    """
    counter = np.array([0, key.index, key.epoch, key.repeat], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=np.array([seed & _MASK, stream], dtype=np.uint64)))
