"""Keys of records: hashes of everything that determines an encoder's output for an image or a text."""

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
"""Version of keys and records. Raise it when either changes: older records are then not found."""

_PIXELS: Final = 1
"""Version of the code from file to pixels (decode, colour management, resampling). Raise it when the pixels change."""


def record_key(kind: str, *parts: str | bytes) -> bytes:
    """Hash (blake2b) the format, the kind and all parts, each prefixed with its length; return 16 bytes."""
    digest = hashlib.blake2b(f"calotype {_FORMAT} {kind}".encode(), digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def text_key(fingerprint: str, text: str) -> bytes:
    """Return the key of the record of a final caption. Equal texts have one key, from whatever row or template.

    Args:
        fingerprint: Hash of the text encoders, their tokenizers, the dtype and the number of tokens.
        text: Input of the tokenizers.
    """
    return record_key("text", fingerprint, text)


def scaling_key(fingerprint: str) -> bytes:
    """Return the key of the record of an autoencoder's scaling.

    Args:
        fingerprint: Hash of the autoencoder, as for `ImageKeys`.
    """
    return record_key("scaling", fingerprint)


def not_finite_key(record: bytes) -> bytes:
    """Return the key of the mark of a record that is not finite.

    Args:
        record: Key of the record.
    """
    return record_key("not_finite", record)


def unreadable_key(content: bytes) -> bytes:
    """Return the key of the mark of a file that can't be decoded. It depends on nothing but the bytes of the file.

    Args:
        content: Hash of the file.
    """
    return record_key("unreadable", str(_PIXELS), content)


class ImageKeys:
    """Computes the keys of one dataset's image records for one autoencoder.

    Args:
        fingerprint: Hash of the autoencoder, its dtype and the stored part of its output.
        transform: The image transform.
        reader: The image reader, for its `decode` and `background`.

    Raises:
        ConfigError: A custom step of the transform has no identity, see `step_identity`.
    """

    def __init__(self, fingerprint: str, transform: ImageTransform, reader: ImageReader) -> None:
        recipe = [
            f"pixels {_PIXELS}",
            reader.decode,
            repr(tuple(reader.background)),
            resampler(transform.interpolation),
        ]
        recipe += [f"{name} {low!r} {high!r}" for name, (low, high) in sorted(transform.color_jitter.ranges.items())]
        recipe += [step_identity(step.function) for step in transform.custom]
        recipe.append("whole" if transform.whole else "")
        self._recipe = record_key("recipe", fingerprint, *recipe)
        self._drawn = bool(transform.color_jitter.ranges or transform.custom)

    def key(self, content: bytes, geometry: Geometry, variant: Variant | None) -> bytes:
        """Return the key of the record of one outcome of an image.

        Args:
            content: Hash of the image's file.
            geometry: Crop, size, rotation and flip.
            variant: Seeds colours and custom steps; None if there is nothing random.
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
