"""Images: a reference → bytes → upright sRGB uint8 pixels. Needs no torch."""

from calotype.images.decode import Decoded
from calotype.images.downloads import Downloads
from calotype.images.fetch import Fetcher
from calotype.images.header import Header
from calotype.images.read import ImageReader
from calotype.images.scan import Content, scan_contents, scan_sizes

__all__ = ["Content", "Decoded", "Downloads", "Fetcher", "Header", "ImageReader", "scan_contents", "scan_sizes"]
