"""Images in a text column, as base64 or `data:` URIs: decoded once into the cache."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from calotype.manifest.cache import cached
from calotype.manifest.captions import as_texts
from calotype.manifest.tables.embedded import Embedded, embedded_in, unpack

__all__ = ["inline_images"]

_SHORTEST: Final = 64
"""Minimum characters of an image."""
# The first bytes of JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and HEIC files in base64.
_INLINE: Final = r"""^[\s"'<]*(?:(?i:data:)|[/_]9j[/_]|iVBORw0KGgo|UklGR|R0lGOD|Qk[0-3]|SUkq|TU0AK|AAAA..Z0eX)"""
_URI = re.compile(r"data:[^,]*?(;base64)?,", re.IGNORECASE)
_BATCH: Final = 256


def inline_images(column: Any, label: str, problems: dict[int, str]) -> tuple[Embedded, Any] | None:
    """Decode the images of a text column into the cache.

    Args:
        column: A text column.
        label: Name of the data file in ids.
        problems: Row → reason; images that can't be decoded are added.

    Returns:
        The images, and the column without them; None if it has none.
    """
    texts = as_texts(column)
    lengths = pc.fill_null(pc.binary_length(texts), 0)
    rows = np.flatnonzero(np.asarray(pc.greater_equal(lengths, _SHORTEST)))
    if not len(rows):
        return None
    rows = rows[np.asarray(pc.match_substring_regex(texts.take(pa.array(rows)), _INLINE))]
    if not len(rows):
        return None
    inline = np.zeros(len(texts), dtype=bool)
    inline[rows] = True
    hasher = xxhash.xxh3_128()
    for text in texts.take(pa.array(rows)).to_pylist():
        hasher.update(text.encode("utf-8"))
    hasher.update(rows.tobytes())
    holder = cached(
        "images",
        [],
        lambda: unpack(pa.large_binary(), _decoded(texts, inline)),
        note=f"inline {len(texts)} {hasher.hexdigest()}",
    )
    embedded, _ = embedded_in(holder, "image", label)
    for row in np.flatnonzero(inline & ~embedded.inside):
        problems[int(row)] = "an image as base64 that can't be decoded: it was truncated or changed"
    return embedded, pc.if_else(pa.array(inline), pa.scalar(None, pa.large_string()), texts)


def _decoded(texts: Any, inline: Any) -> Iterable[pa.Array]:
    for first in range(0, len(texts), _BATCH):
        values = texts.slice(first, _BATCH).to_pylist()
        marks = inline[first : first + _BATCH]
        yield pa.array(
            [_decode(value) if mark else None for value, mark in zip(values, marks, strict=True)], pa.large_binary()
        )


def _decode(text: str) -> bytes | None:
    text = text.strip().strip("\"'<>")
    uri = _URI.match(text)
    body = text[uri.end() :] if uri else text
    if uri and not uri[1]:
        return unquote_to_bytes(body)
    body = re.sub(r"\s+", "", unquote_to_bytes(body).decode("ascii", "replace") if uri else body)
    body = body.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
