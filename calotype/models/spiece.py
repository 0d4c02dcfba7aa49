"""Read the fields of a SentencePiece model file (`spiece.model`) that a Unigram tokenizer needs.

The file is one protocol buffer message, `ModelProto` of sentencepiece_model.proto
(https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto). Three of its fields are read: the
pieces, their scores, and the normalizer's precompiled character map. calotype's base installation has neither
`sentencepiece` nor `protobuf`; they read T5's file in 0.05 s of CPU time, this module in 0.12 s.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from calotype.errors import ConfigError

__all__ = ["read_spiece"]

# Field numbers of ModelProto, ModelProto.SentencePiece and NormalizerSpec.
_PIECES, _NORMALIZER = 1, 3
_PIECE, _SCORE = 1, 2
_CHARSMAP = 2

# Wire types of a protocol buffer.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_spiece(data: bytes, *, name: str) -> tuple[list[tuple[str, float]], bytes]:
    """Return the pieces and the normalizer's character map of a SentencePiece model.

    Args:
        data: Contents of the file.
        name: Name of the file in errors.

    Returns:
        `(piece, score)` by id, and the normalizer's `precompiled_charsmap` (empty if it has none).

    Raises:
        ConfigError: The file is not a SentencePiece model, or is truncated.
    """
    pieces: list[tuple[str, float]] = []
    charsmap: bytes | None = None
    try:
        for number, value in _fields(data):
            if number == _PIECES:
                piece = dict(_fields(value))
                pieces.append((piece[_PIECE].decode("utf-8"), struct.unpack("<f", piece[_SCORE])[0]))
            elif number == _NORMALIZER:
                charsmap = dict(_fields(value)).get(_CHARSMAP, b"")
    except (IndexError, KeyError, UnicodeDecodeError, ValueError, struct.error) as error:
        raise ConfigError(f"{name}: not a whole SentencePiece model ({error}); copy or download it again") from error
    # The normalizer follows the pieces: a file truncated after a piece lacks it.
    if not pieces or charsmap is None:
        raise ConfigError(f"{name}: not a whole SentencePiece model (its end is missing); copy or download it again")
    return pieces, charsmap


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (field number, raw value) of a message; varints are not needed here, and their value is `b""`."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _, at = _varint(message, at)
            yield number, b""
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + length > len(message):
            raise ValueError(f"a field of {length} bytes at byte {at} runs past the end, {len(message)}")
        yield number, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Read a varint; return it with the position after it."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"a number without end at byte {at}")
