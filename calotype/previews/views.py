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
    """Key in the batch: `t5_text_tokens`."""
    pieces: tuple[TokenPiece, ...]
    """All tokens but padding."""
    limit: int
    """Length of the tensor."""
    padding: int
    """Number of padding tokens."""


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
    """Peak signal-to-noise ratio in dB, relative to the trained image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleView:
    """One sample of a batch and how it was made."""

    key: SampleKey
    id: str
    original: Pixels
    """The whole upright image, downscaled for display."""
    geometry: Geometry
    """Geometry of the trained image, in pixels of the original at its full size."""
    image: Pixels
    """The trained tensor, denormalised, at full size."""
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
    """Whether the image made again from its key has the same pixels as in the batch. If not, a custom step is not
    deterministic or the file has changed; original, geometry and draws may then not match `image`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    """One batch of the Loader."""

    epoch: int
    step: int
    steps: int
    """Number of batches of the epoch."""
    seed: int
    batch: Batch
    """The Loader's batch, on the CPU, as training gets it."""
    entries: tuple[Entry, ...]
    samples: tuple[SampleView, ...]
    encoded: tuple[Entry, ...] = ()
    """Entries of the same batch, encoded; empty unless they were asked for."""
