"""Shows exactly what the model will see: the Loader's own batches, and how each sample came about."""

from calotype.previews.document import Preview, preview
from calotype.previews.round_trip import Autoencoder

__all__ = ["Autoencoder", "Preview", "preview"]
