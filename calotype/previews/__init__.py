"""Previews of what the model sees: the Loader's own batches, and how each sample was made."""

from calotype.previews.document import Preview, preview
from calotype.previews.round_trip import Autoencoder

__all__ = ["Autoencoder", "Preview", "preview"]
