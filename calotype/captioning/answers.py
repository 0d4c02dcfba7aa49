"""`parse_answer`: the caption in a model's output without reasoning, framing and special tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from calotype.captioning.backend import CaptionAnswer

__all__ = ["parse_answer"]

_TAGS: Final = r"think(?:ing)?|thought|reason(?:ing)?"
_MARKS: Final = (
    (rf"<(?:{_TAGS})>", rf"</(?:{_TAGS})>"),
    ("◁think▷", "◁/think▷"),
    (r"<\|channel>thought", r"<channel\|>"),
)
_OPEN: Final = "|".join(opening for opening, _ in _MARKS)
_CLOSE: Final = "|".join(closing for _, closing in _MARKS)
_CLOSED: Final = re.compile(rf"(?i){_CLOSE}")
_STILL_OPEN: Final = re.compile(rf"(?i){_OPEN}")

_TOKENS: Final = re.compile(
    r"<\|[A-Za-z][\w ./-]*\|>|</?s>|<pad>|<unk>|<(?:bos|eos)>|</?answer>|<(?:start|end)_of_turn>"
)
"""Special tokens of chat formats that a decoder has not removed."""

_LONGEST: Final = 32_768
"""Maximum characters of an output. Captions are far shorter, and the patterns below are not made for longer texts."""

_FENCE: Final = re.compile(r"(?s)```\w*\n(.*?)```")
_LABEL: Final = re.compile(
    r"(?i)[*_#\s]*(?:(?:image|photo|picture|short|detailed|final|new|suggested)\s+)*"
    r"(?:captions?|descriptions?|tags|answer|output)[*_\s]*:[*_\s]*"
)
_PREAMBLE: Final = re.compile(
    r"(?i)(?:(?:sure|certainly|of course|absolutely|okay|ok)(?: thing)?[,.!]*\s*)?"
    r"(?:here(?:'s|’s| is| are)|the following is|below is)\b[^:\n]{0,100}?"
    r"\b(?:captions?|descriptions?|tags|paragraph|sentence|prompt|list)\b[^:\n]{0,100}:\s*"
)
_QUOTES: Final = {'"': '"', "“": "”", "«": "»", "'": "'", "‘": "’", "`": "`", "「": "」"}
_REFUSAL: Final = re.compile(
    r"(?i)(?:i['’]?m|i am) (?:really |very )?(?:sorry|unable to|not able to|an ai\b)|"
    r"(?:sorry|apologies|i apologi[sz]e)[,.! ]|i (?:can['’]?t|cannot|can not|won['’]?t)\b|as an ai\b"
)
_HAS_WORDS: Final = re.compile(r"\w")


def parse_answer(
    text: str | None, *, finish_reason: str | None, reasoned: bool = False, special: Sequence[str] = ()
) -> CaptionAnswer:
    """Return the caption in a model's output, on one line; or why there is none.

    Removes reasoning (such as `<think>…</think>`, also if the prompt opened it), tokens of the chat format, a code
    fence, a leading `Caption:` or `Here is a caption of the image:`, and quotes around the whole. Line breaks and runs
    of spaces become one space.

    Args:
        text: The output; None is empty.
        finish_reason: Why generation ended, from the backend; `length` means cut off.
        reasoned: Whether the server returned reasoning separately.
        special: The tokenizer's special tokens, if they were decoded.
    """
    raw = text or ""
    if len(raw) > _LONGEST:
        return _no_caption("too_long", f"the answer has {len(raw):,} characters: {_start_of(raw)}", finish_reason)
    for mark in _CLOSED.finditer(raw):
        raw = (text or "")[mark.end() :]  # the text after the last match
    opened = _STILL_OPEN.search(raw)
    if opened is not None or (reasoned and not raw.strip()):
        cut = " and was cut off there" if finish_reason == "length" else ""
        return _no_caption("reasoning", f"the model reasoned{cut}, and gave no answer", finish_reason)
    for token in special:
        raw = raw.replace(token, " ")
    caption = _bare(_TOKENS.sub(" ", raw))
    if finish_reason == "content_filter":
        return _no_caption("refused", "the server's content filter blocked the answer", finish_reason)
    if finish_reason == "length":
        return _no_caption("cut_off", f"the answer was cut off: {_start_of(caption)}", finish_reason)
    if not _HAS_WORDS.search(caption):
        return _no_caption("empty", f"the answer was empty{f' ({caption!r})' if caption else ''}", finish_reason)
    if _REFUSAL.match(caption):
        return _no_caption("refused", f"the model refused: {_start_of(caption)}", finish_reason)
    return CaptionAnswer(text=caption, finish_reason=finish_reason)


def _bare(text: str) -> str:
    """Strip framing until nothing changes."""
    fenced = _FENCE.search(text)
    text = fenced[1] if fenced else text
    while True:
        before = text
        text = text.strip()
        for framing in (_PREAMBLE, _LABEL):
            text = framing.sub("", text, count=1) if framing.match(text) else text
        text = _unquoted(text)
        if text == before:
            return " ".join(text.split())


def _unquoted(text: str) -> str:
    """Strip quotes around the whole; `"Stop" and "Go"` stays."""
    for opening, closing in (*_QUOTES.items(), ("**", "**")):
        inside = text[len(opening) : -len(closing)]
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            return text if opening in inside or closing in inside else inside
    return text


def _start_of(caption: str) -> str:
    return repr(caption if len(caption) <= 80 else f"{caption[:79]}…")


def _no_caption(kind: str, error: str, finish_reason: str | None) -> CaptionAnswer:
    return CaptionAnswer(error=error, kind=kind, finish_reason=finish_reason)
