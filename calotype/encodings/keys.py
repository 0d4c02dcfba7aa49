"""The keys of records: a hash of everything that could change what an encoder gives for a picture or a text."""

from __future__ import annotations

import hashlib
import inspect
import re
import struct
from typing import Any, Final

from calotype.draws import Variant
from calotype.errors import ConfigError
from calotype.images import ImageReader
from calotype.transforms import ImageProgram
from calotype.types import Geometry

__all__ = ["PictureKeys", "record_key", "scaling_key", "text_key", "unreadable_key"]

_FORMAT: Final = 1
"""Of keys and records; raised when either changes, so that no older record is met."""

_PIXELS: Final = 1
"""Of the code from file to pixels (decode, colour management, resampling); raised when it gives other pixels."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


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
        fingerprint: Of the autoencoder, as for its pictures.
    """
    return record_key("scaling", fingerprint)


def unreadable_key(content: bytes) -> bytes:
    """Of the word that a file can't be decoded, which nothing but its bytes decides.

    Args:
        content: The hash of the file.
    """
    return record_key("unreadable", str(_PIXELS), content)


class PictureKeys:
    """Keys of one dataset's pictures for one autoencoder.

    Args:
        fingerprint: Of the autoencoder, its dtype and what is kept of it.
        program: The image program.
        reader: The reader: how it decodes and what it composites on.

    Raises:
        ConfigError: A custom step of the program can't be told from another.
    """

    def __init__(self, fingerprint: str, program: ImageProgram, reader: ImageReader) -> None:
        recipe = [f"pixels {_PIXELS}", reader.decode, repr(tuple(reader.background)), program.interpolation]
        recipe += [f"{name} {low!r} {high!r}" for name, (low, high) in sorted(program.color_jitter.ranges.items())]
        recipe += [_identity(step.function) for step in program.custom]
        recipe.append("whole" if program.whole else "")
        self._recipe = record_key("recipe", fingerprint, *recipe)
        self._drawn = bool(program.color_jitter.ranges or program.custom)

    def key(self, content: bytes, geometry: Geometry, variant: Variant | None) -> bytes:
        """Of one outcome of one picture.

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


def _identity(function: Any) -> str:
    """What a custom step is, the same in every process: its name, its parameters and its source.

    Raises:
        ConfigError: It has no source to be told by.
    """
    known = getattr(function, "cache_key", None)
    if known is not None:
        return str(known)
    kind = function if inspect.isroutine(function) else type(function)
    name = f"{kind.__module__}.{kind.__qualname__}"
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        source = ""
    if inspect.isroutine(function) and getattr(function, "__closure__", None):
        source = ""  # what it closes over can't be seen in it
    if not source:
        raise ConfigError(
            f"custom: {function!r} can't be told from another step (a closure, or code without a source), so what was "
            "encoded with it could be met after it changed; give it an attribute `cache_key`, a text that changes "
            "whenever its pictures do"
        )
    return f"{name}\n{_ADDRESS.sub('', repr(function))}\n{source}"
