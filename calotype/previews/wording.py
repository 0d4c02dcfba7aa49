"""Captions and tokens in words: what the data says, what was made of it, and what the model reads."""

from __future__ import annotations

import re
from collections import Counter

from calotype.models.pieces import TokenPiece
from calotype.previews.markup import Html, tag
from calotype.previews.views import TokenView
from calotype.transforms import CaptionDraw

__all__ = ["NO_CAPTION", "caption_section", "final_caption", "token_section"]

NO_CAPTION = "(no caption: dropped for guidance)"

_CHANGES = {"dropped": "del", "moved": "mark", "added": "ins"}


def caption_section(draw: CaptionDraw, *, captions: int) -> Html:
    """The caption of the data and the final one; one paragraph where they are the same.

    Args:
        draw: What came out.
        captions: How many the image has.
    """
    which = f"caption {draw.choice + 1} of {captions}" if captions > 1 else None
    if draw.text == draw.raw and not draw.dropped:
        return tag(
            "section",
            tag("h4", "Caption"),
            _caption("As in the data", which, tag("p", *_words(draw.text), class_="caption final", dir="auto")),
            class_="captions",
        )
    counts = Counter[str](part.state for part in draw.parts)
    changes = ", ".join(f"{counts[state]} {state}" for state in _CHANGES if counts[state])
    return tag(
        "section",
        tag("h4", "Caption"),
        _caption("In the data", which, tag("p", *_words(draw.raw), class_="caption raw", dir="auto")),
        _caption("As trained", changes, final_caption(draw)),
        class_="captions",
    )


def _caption(label: str, detail: str | None, paragraph: Html) -> Html:
    more = tag("span", detail, class_="detail") if detail else None
    return tag("div", tag("p", label, " · " if more else None, more, class_="label"), paragraph)


def _words(caption: str) -> list[str]:
    return [caption] if caption else [tag("em", "(empty)")]


def final_caption(draw: CaptionDraw) -> Html:
    """The final text, character for character, with its parts marked where they stand in it.

    Dropped parts are put where they were: without them, what is left reads exactly as `draw.text`.
    """
    pieces: list[str] = []
    gone: list[str] = []
    position = 0
    for part in draw.parts:
        if part.state == "dropped":
            gone.append(tag("del", part.text))
            continue
        start = draw.text.find(part.text, position)
        if start < 0:
            # A part that is not in the text has nothing to be marked on.
            continue
        # What was dropped comes after the separator that now follows its neighbour.
        name = _CHANGES.get(part.state)
        pieces += [draw.text[position:start], *gone, tag(name, part.text) if name else part.text]
        gone = []
        position = start + len(part.text)
    pieces += [draw.text[position:], *gone]
    said = tag("em", NO_CAPTION if draw.dropped else "(empty)") if not draw.text else None
    return tag("p", said, *pieces, class_="caption final", dir="auto")


def token_section(views: tuple[TokenView, ...]) -> Html | None:
    """What each tokenizer makes of the final caption, behind its count; open where something was cut."""
    if not views:
        return None
    return tag("section", tag("h4", "Tokens"), *(_tokens(view) for view in views), class_="tokens")


def _tokens(view: TokenView) -> Html:
    cut = sum(piece.kind == "cut" for piece in view.pieces)
    used = len(view.pieces) - cut
    lost = tag("strong", f"⚠ {_count(cut, 'token')} cut", class_="warning") if cut else None
    summary = tag(
        "summary",
        tag("code", view.key),
        tag("span", f"{used} of {view.limit}", class_="used"),
        _meter(used, view.limit),
        lost,
    )
    more = tag("li", f"+ {view.padding} padding", class_="padding") if view.padding else None
    return tag("details", summary, tag("ol", *(_piece(piece) for piece in view.pieces), more), open=cut > 0)


def _meter(used: int, limit: int) -> Html:
    share = 100 * min(1.0, used / limit) if limit else 100.0
    return tag(
        "svg",
        tag("rect", class_="track", width=100, height=1),
        tag("rect", class_="fill", width=f"{share:.1f}", height=1),
        class_="meter",
        viewBox="0 0 100 1",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def _piece(piece: TokenPiece) -> Html:
    # A space is an element of its own, so that the eye can count it.
    shown = [tag("i", " ") if run == " " else run for run in re.split("( )", piece.text)]
    words = tag("s" if piece.kind == "cut" else "b", *shown)
    return tag("li", words, tag("small", str(piece.id)), class_=None if piece.kind == "text" else piece.kind)


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
