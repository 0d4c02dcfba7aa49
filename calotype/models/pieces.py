"""The tokens of a caption in readable form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["TokenPiece", "byte_alphabet", "readable"]


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """One token."""

    text: str
    """Readable text; the joined texts of a caption are the caption as the tokenizer normalizes it."""
    id: int
    """Its id in the vocabulary."""
    kind: Literal["frame", "text", "cut"]
    """`frame`: a start or end token. `text`: a token of the caption. `cut`: a truncated one."""


def byte_alphabet() -> list[str]:
    """Return the character for each of the 256 bytes in byte-level vocabularies: its own for a printable byte.

    The characters of the others are in the order of GPT-2's `encoder.py` (https://github.com/openai/gpt-2).
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    letters, spare = [], 256
    for byte in range(256):
        if byte in printable:
            letters.append(chr(byte))
        else:
            letters.append(chr(spare))
            spare += 1
    return letters


_BYTES: Final = {letter: byte for byte, letter in enumerate(byte_alphabet())}
_WORD_END: Final = "</w>"


def readable(token: str, *, byte_level: bool) -> str:
    """Return a token of the vocabulary as text: a space for a word boundary, `<0xE2>` for a part of a character.

    Args:
        token: The token in the vocabulary.
        byte_level: Whether its characters are bytes (CLIP), or themselves with `▁` for a space (T5).
    """
    if not byte_level:
        return token.replace("▁", " ")
    body = token.removesuffix(_WORD_END)
    end = " " if body != token else ""
    if not all(letter in _BYTES for letter in body):
        return token
    data = bytes(_BYTES[letter] for letter in body)
    try:
        return data.decode("utf-8") + end
    except UnicodeDecodeError:
        return "".join(chr(byte) if 32 < byte < 127 else f"<0x{byte:02X}>" for byte in data) + end
