"""Pictures: a reference → bytes → upright sRGB uint8 pixels. Needs no torch."""

from calotype.images.decode import Decoded
from calotype.images.fetch import Fetcher
from calotype.images.header import Header
from calotype.images.read import ImageReader

__all__ = ["Decoded", "Fetcher", "Header", "ImageReader"]
