"""Artifacts in captions: refusals and openers of captioners, and characters that are likely mistakes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

__all__ = ["odd_characters", "opener", "refusal"]

_APOSTROPHES: Final = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'"})

_CANNOT: Final = r"(?:can(?:not|'t| not)|(?:am|'m) (?:unable|not able|not comfortable)|won't be able)"
_TASK: Final = (
    r"(?:to )?(?:assist|help|describe|caption|provide|identify|generate|create|see|view|analy[sz]e|process|comply"
    r"|fulfil|engage|discuss|determine|recogni[sz]e|comment|do that|access|display|show|write)"
)
_REFUSALS: Final = re.compile(
    "|".join(
        (
            r"(?:i'?m|i am|we'?re|we are) (?:so |very |really )?sorry,? but (?:i|we|as an)\b",
            rf"(?:i'?m |i am )?(?:sorry|apologies)[,.;:]? (?:but )?i(?:'m)? ?{_CANNOT}",
            r"(?:i'm|i am) sorry[,.] (?:but )?i(?: do)?n't have (?:the ability|access)",
            rf"i(?:'m| am)? ?{_CANNOT} {_TASK}\b",
            rf"unfortunately,? i(?:'m| am)? ?{_CANNOT}",
            r"as an? (?:ai|artificial intelligence|(?:large )?language|text-based)[ -](?:language )?"
            r"(?:model|assistant|system)?",
            r"i apologi[sz]e,? (?:but|for)",
            r"i (?:do not|don't) (?:see|have) (?:an|any|the|access to (?:an|any|the)) image",
            r"(?:there (?:is|was) )?no image (?:was |is |has been )?(?:provided|attached|uploaded)",
            r"(?:please|could you(?: please)?) (?:provide|upload|attach|share) (?:an|the|your) image",
        )
    ),
    re.IGNORECASE,
)

_NOUN: Final = (
    r"(?:image|picture|photo|photograph|illustration|drawing|painting|artwork|scene|screenshot|frame|render|snapshot)"
)
_VERB: Final = (
    r"(?:shows?|depicts?|features?|displays?|captures?|portrays?|presents?|showcases?|illustrates?|contains?|includes?"
    r"|represents?|is of|is a|is an|appears to be|seems to be|consists of)"
)
_WORD: Final = r"(?:[\w-]+ ){0,3}?"
_OPENERS: Final = re.compile(
    "|".join(
        (
            r"(?:sure|certainly|of course|okay|absolutely)[!,.]? (?:here(?:'s| is| are)|i (?:can|will|would)|let me)"
            r"[^:.\n]*[:.]\s*",
            r"here(?:'s| is) (?:a|an|the|your) [^:.\n]{0,60}?(?:caption|description|prompt)[^:\n]{0,60}:\s*",
            r"(?:\*\*)?(?:caption|(?:image )?description|prompt|answer|assistant|output)(?:\*\*)?\s*:(?:\*\*)?\s*",
            rf"(?:in )?(?:this|the) {_WORD}{_NOUN},? (?:we|you|one|i) (?:can )?(?:see|observe|find)(?: that)? ",
            rf"(?:this|the) {_WORD}{_NOUN} (?:prominently |clearly |primarily |vividly )?{_VERB}\s+",
            rf"in (?:this|the) {_WORD}{_NOUN},? there (?:is|are) ",
            r"(?:we|you|i) can see (?:that )?",
        )
    ),
    re.IGNORECASE,
)
_LEADS: Final = "\"'`*_#> \t\n"

_ODD: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
    "\ud800-\udfff\ue000-\uf8ff]"
)
_JOINERS: Final = "\u200d\u200c"
_MOJIBAKE: Final = re.compile(
    r"[\u00c2\u00c3][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u2122]"
    r"|\u00e2\u20ac[\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u2122]?"
    r"|\u00f0\u0178[\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u2122]"
)
_MISSING: Final = re.compile(r"\s*(?:nan|none|null|undefined|<na>|n/a)\s*\Z", re.IGNORECASE)
_NUMBERS: Final = re.compile(r"(?:\s*-?\d+(?:\.\d+)?[\s,;]+){3,}-?\d+(?:\.\d+)?\s*\Z")
_LIST: Final = re.compile(r"\s*\[\s*(?:\"[^\"]*\"|'[^']*')(?:\s*,\s*(?:\"[^\"]*\"|'[^']*'))*\s*\]\s*\Z")
_ENTITY: Final = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{1,7}|#x[0-9a-fA-F]{1,6});")
_ESCAPE: Final = re.compile(r"\\[nrt]|\\u[0-9a-fA-F]{4}")
_TAG: Final = re.compile(
    r"</?(?:p|br|b|i|em|strong|div|span|caption|s|pad|unk|eos|bos)\s*/?>|<\|[a-z_]+\|>", re.IGNORECASE
)
_MARKDOWN: Final = re.compile(r"\*\*[^*\n]+\*\*|^\s*#{1,6} \S|^\s*[-*] \S|```", re.MULTILINE)
_RUN: Final = re.compile(r"([^\W\d])\1{5,}|([^\w\s.\-=_])\2{5,}")
_LOOP: Final = re.compile(r"\b(\w[\w' ,.-]{2,60}?)(?:[\s,.;]+\1\b){3,}", re.IGNORECASE)
_WRAPPED: Final = {'"': '"', "\u201c": "\u201d", "'": "'", "`": "`"}
_CONTEXT: Final = 12


def refusal(caption: str) -> bool:
    """Whether a text is a captioner's refusal instead of a caption.

    Only the beginning is matched: a description may quote a sign that reads "I'm sorry".
    """
    return _REFUSALS.match(caption.translate(_APOSTROPHES).lstrip(_LEADS)) is not None


def opener(caption: str) -> str | None:
    """Return the stock phrase that a caption begins with ("The image shows "); None without one."""
    plain = caption.translate(_APOSTROPHES)
    start = len(plain) - len(plain.lstrip(_LEADS))
    match = _OPENERS.match(plain, start)
    return caption[start : match.end()] if match is not None else None


def odd_characters(caption: str) -> Iterator[str]:
    """Yield a sentence for each likely mistake in the text of a caption, with its position and context."""
    for odd in _ODD.finditer(caption):
        letter = odd[0]
        if letter in _JOINERS and odd.start() and not caption[odd.start() - 1].isascii():
            continue  # joins emoji, and letters in Persian or Indic scripts
        name = unicodedata.name(letter, _unnamed(letter))
        yield f"{name} (U+{ord(letter):04X}) at {_at(caption, *odd.span())}"
        break  # one example per caption is enough
    if (match := _MOJIBAKE.search(caption)) is not None:
        yield f"UTF-8 that was read as another encoding, {match[0]!r} at {_at(caption, *match.span())}"
    elif not unicodedata.is_normalized("NFC", caption):
        yield "letters and their accents as separate characters (not in Unicode's normal form C)"
    for pattern, what in (
        (_MISSING, "what programs write for a missing value"),
        (_NUMBERS, "numbers and nothing else, as of bounding boxes"),
        (_LIST, "a list written as one text"),
        (_ENTITY, "an HTML entity"),
        (_ESCAPE, "an escape sequence as text"),
        (_TAG, "a tag"),
        (_MARKDOWN, "Markdown"),
        (_RUN, "one character over and over"),
        (_LOOP, "a phrase over and over"),
    ):
        if (match := pattern.search(caption)) is not None:
            shown = match[0] if len(match[0]) <= 40 else match[0][:40] + "…"
            yield f"{what}, {shown!r} at {_at(caption, *match.span())}"
    if len(caption) > 2 and _WRAPPED.get(caption[0]) == caption[-1] and caption[0] not in caption[1:-1]:
        yield f"quotation marks around the whole, {caption[0]}…{caption[-1]}"
    if caption != caption.strip():
        yield "white space at the beginning or end"


def _unnamed(letter: str) -> str:
    code = ord(letter)
    if 0xD800 <= code < 0xE000:
        return "half a character (a lone surrogate)"
    return "a private character" if 0xE000 <= code < 0xF900 else "a control character"


def _at(caption: str, start: int, end: int) -> str:
    before, after = caption[max(0, start - _CONTEXT) : start], caption[end : end + _CONTEXT]
    return f"character {start + 1}: {before + '⟦' + caption[start : min(end, start + 20)] + '⟧' + after!r}"
