"""Images as `img` elements with their bytes in a `data:` URL, so that the page is a single file."""

from __future__ import annotations

import base64
import io

from PIL import Image

from calotype.previews.markup import Html, tag
from calotype.previews.views import Pixels

__all__ = ["image_tag"]


def image_tag(pixels: Pixels, *, alt: str, side: int, quality: int) -> Html:
    """Return an `img` element that contains its pixels.

    Args:
        pixels: uint8 (H, W, 3), sRGB.
        alt: Alternative text.
        side: Maximum length of the longer side in pixels; smaller images are not enlarged.
        quality: WebP quality, 0 to 100.
    """
    image = Image.fromarray(pixels)
    scale = min(1.0, side / max(image.size))
    if scale < 1.0:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=2)
    source = Html(f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}")
    return tag("img", src=source, alt=alt, width=image.width, height=image.height, loading="lazy", decoding="async")
