"""Captions and tokens on the page: the caption in the data, the final caption, and its tokens."""

from __future__ import annotations

import re
from collections import Counter

from calotype.models.pieces import TokenPiece
from calotype.previews.markup import Html, tag
from calotype.previews.views import TokenView
from calotype.transforms import CaptionDraw

__all__ = ["NO_CAPTION", "caption_section", "count", "final_caption", "token_section"]

NO_CAPTION = "(no caption: dropped for guidance)"

_CHANGES = {"dropped": "del", "moved": "mark", "added": "ins"}


def caption_section(draw: CaptionDraw, *, captions: int) -> Html:
    """Return the caption in the data and the final one; one paragraph if they are equal.

    Args:
        draw: The sampled caption.
        captions: Number of captions of the image.
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
    """Return the exact final text with its parts marked.

    Dropped parts are inserted at their former positions; without them the text equals `draw.text`.
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
            # The part is not in the text.
            continue
        # Dropped parts are inserted after the separator that precedes this part.
        name = _CHANGES.get(part.state)
        pieces += [draw.text[position:start], *gone, tag(name, part.text) if name else part.text]
        gone = []
        position = start + len(part.text)
    pieces += [draw.text[position:], *gone]
    said = tag("em", NO_CAPTION if draw.dropped else "(empty)") if not draw.text else None
    return tag("p", said, *pieces, class_="caption final", dir="auto")


def token_section(views: tuple[TokenView, ...]) -> Html | None:
    """Return the tokens of the final caption by tokenizer, folded under their count; unfolded if any was cut."""
    if not views:
        return None
    return tag("section", tag("h4", "Tokens"), *(_tokens(view) for view in views), class_="tokens")


def _tokens(view: TokenView) -> Html:
    cut = sum(piece.kind == "cut" for piece in view.pieces)
    used = len(view.pieces) - cut
    lost = tag("strong", f"⚠ {count(cut, 'token')} cut", class_="warning") if cut else None
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
    # Each space is an element, so that spaces are visible one by one.
    shown = [tag("i", " ") if run == " " else run for run in re.split("( )", piece.text)]
    words = tag("s" if piece.kind == "cut" else "b", *shown)
    return tag("li", words, tag("small", str(piece.id)), class_=None if piece.kind == "text" else piece.kind)


def count(number: int, name: str) -> str:
    """Return a number and the name of what is counted, in the plural unless it is one: `2 batches`."""
    if number == 1:
        return f"1 {name}"
    return f"{number} {name}es" if name.endswith("ch") else f"{number} {name}s"
