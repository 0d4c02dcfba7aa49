"""The tokens of a caption as a person can read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["TokenPiece", "byte_alphabet", "readable"]


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """One token."""

    text: str
    """Readable; the joined texts of a caption read like the caption as the tokenizer has normalised it."""
    id: int
    kind: Literal["frame", "text", "cut"]
    """`frame`: start and end tokens. `cut`: beyond the limit, the model never sees it."""


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies, printable bytes for themselves.

    The order of the others is that of OpenAI's `encoder.py` of GPT-2 (https://github.com/openai/gpt-2).
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
    """A token of the vocabulary as text: spaces for the marks of word borders, `<0xE2>` for a part of a character.

    Args:
        token: As the vocabulary has it.
        byte_level: Whether its characters stand for bytes (CLIP) or for themselves, with `▁` for a space (T5).
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
