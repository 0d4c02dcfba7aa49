"""Previews of what the model sees: the Loader's own batches, and how each sample was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calotype.core.lazy import exports

if TYPE_CHECKING:
    from calotype.previews.document import Preview, preview
    from calotype.previews.round_trip import Autoencoder

__all__ = ["Autoencoder", "Preview", "preview"]
__getattr__ = exports(__name__, {"Autoencoder": ".round_trip", "Preview": ".document", "preview": ".document"})
