"""The views of a preview as plain values: `gather` makes them, the page and the contact sheet render them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calotype.loader.summary import Entry
from calotype.models.pieces import TokenPiece
from calotype.transforms import CaptionDraw
from calotype.types import Batch, Geometry, SampleKey

__all__ = ["BatchView", "Draw", "Pixels", "RoundTrip", "SampleView", "TokenView"]

Pixels = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), sRGB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """The final caption as one tokenizer encodes it."""

    key: str
    """Of the batch: `t5_text_tokens`."""
    pieces: tuple[TokenPiece, ...]
    """Padding is not among them but counted."""
    limit: int
    """Length of the tensor."""
    padding: int
    """Padding tokens that fill it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """The same image as a later epoch samples it."""

    epoch: int
    image: Pixels
    """Downscaled for display."""
    geometry: Geometry
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """The trained image after the autoencoder's encoder and decoder."""

    image: Pixels
    psnr: float
    """dB, against the trained image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleView:
    """One sample of a batch and how it was made."""

    key: SampleKey
    id: str
    original: Pixels
    """The whole upright image, downscaled for display."""
    geometry: Geometry
    """Of the trained image; its sizes are those of the real original."""
    image: Pixels
    """The tensor as trained, denormalised, at its full size."""
    draws: tuple[Draw, ...]
    caption: CaptionDraw
    captions: int = 1
    """Number of captions of the image; `caption.choice` is the position of this one."""
    tokens: tuple[TokenView, ...]
    """Empty without tokenizers."""
    round_trip: RoundTrip | None
    """None without an autoencoder."""
    stands_in_for: str | None = None
    """The id of the unreadable image that this one replaces."""
    repeatable: bool = True
    """Whether the image made again from its key has the same pixels as the batch. If not, a custom step uses other
    randomness, or the file has changed; original, geometry and draws may then belong to other pixels than `image`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    """One batch of the Loader."""

    epoch: int
    step: int
    steps: int
    """Batches of that epoch."""
    seed: int
    batch: Batch
    """The Loader's own, on the CPU: what training gets."""
    entries: tuple[Entry, ...]
    samples: tuple[SampleView, ...]
