"""Keys of records: a hash of everything that could change an encoder's output for an image or a text."""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from calotype.core.rng import Variant
from calotype.encodings.step_identity import step_identity
from calotype.images import ImageReader
from calotype.transforms import ImageTransform
from calotype.transforms.resample import resampler
from calotype.types import Geometry

__all__ = ["ImageKeys", "not_finite_key", "record_key", "scaling_key", "text_key", "unreadable_key"]

_FORMAT: Final = 1
"""Of keys and records; raised when either changes, so that no older record is met."""

_PIXELS: Final = 1
"""Of the code from file to pixels (decode, colour management, resampling); raised when it gives other pixels."""


def record_key(kind: str, *parts: str | bytes) -> bytes:
    """16 bytes: blake2b of the format, the kind and all parts, each behind its length so that no two lists agree."""
    digest = hashlib.blake2b(f"calotype {_FORMAT} {kind}".encode(), digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def text_key(fingerprint: str, text: str) -> bytes:
    """Of one final caption. Whatever made the caption (row, template, draws) plays no part: equal texts are one.

    Args:
        fingerprint: Of the text encoders, their tokenizers, dtype and length of captions.
        text: As the tokenizers get it.
    """
    return record_key("text", fingerprint, text)


def scaling_key(fingerprint: str) -> bytes:
    """Of an autoencoder's scaling.

    Args:
        fingerprint: Of the autoencoder, as for its images.
    """
    return record_key("scaling", fingerprint)


def not_finite_key(record: bytes) -> bytes:
    """Of the mark that a record would hold NaN or inf.

    Args:
        record: Its key.
    """
    return record_key("not_finite", record)


def unreadable_key(content: bytes) -> bytes:
    """Of the word that a file can't be decoded, which nothing but its bytes decides.

    Args:
        content: The hash of the file.
    """
    return record_key("unreadable", str(_PIXELS), content)


class ImageKeys:
    """Keys of one dataset's images for one autoencoder.

    Args:
        fingerprint: Of the autoencoder, its dtype and what is kept of it.
        program: The image transform.
        reader: The reader: how it decodes and what it composites on.

    Raises:
        ConfigError: A custom step of the transform has no identity.
    """

    def __init__(self, fingerprint: str, program: ImageTransform, reader: ImageReader) -> None:
        recipe = [f"pixels {_PIXELS}", reader.decode, repr(tuple(reader.background)), resampler(program.interpolation)]
        recipe += [f"{name} {low!r} {high!r}" for name, (low, high) in sorted(program.color_jitter.ranges.items())]
        recipe += [step_identity(step.function) for step in program.custom]
        recipe.append("whole" if program.whole else "")
        self._recipe = record_key("recipe", fingerprint, *recipe)
        self._drawn = bool(program.color_jitter.ranges or program.custom)

    def key(self, content: bytes, geometry: Geometry, variant: Variant | None) -> bytes:
        """Of one outcome of one image.

        Args:
            content: The hash of its file.
            geometry: Where its pixels come from and what they become.
            variant: What draws its colours.
        """
        numbers = struct.pack(
            "<10qd2?",
            *geometry.original_size,
            *geometry.box,
            *geometry.target_size,
            *geometry.crop_top_left,
            geometry.rotate,
            *geometry.flip,
        )
        number = b"" if variant is None or not self._drawn else variant.number.to_bytes(8, "little")
        return record_key("picture", self._recipe, content, numbers, number)
