"""Images as parts of the page: small enough for sixty-four samples in one file, as `data:` addresses."""

from __future__ import annotations

import base64
import io

from PIL import Image

from calotype.previews.markup import Html, tag
from calotype.previews.views import Pixels

__all__ = ["picture"]


def picture(pixels: Pixels, *, alt: str, side: int, quality: int) -> Html:
    """An `img` that carries its own pixels.

    Args:
        pixels: What to show.
        alt: What it is, for those who can't see it.
        side: The longer side is made no larger than this, and never enlarged.
        quality: Of WebP, 0 to 100.
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
