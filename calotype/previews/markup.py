"""HTML from plain values: what is not made by `tag` is text, and text is escaped."""

from __future__ import annotations

import html
import re
import unicodedata

from calotype.terminal import CONTROLS

__all__ = ["Html", "tag", "text", "visible"]

_VOID = {"img", "input", "link", "meta"}

_ODD = re.compile(f"[{CONTROLS}\xa0\u2000-\u200a\u202f\u205f]")
"""Characters that show nothing, turn the direction of what follows, or can't be written, and unusual spaces: all that a
reader of the page would miss and a tokenizer does not."""

_CONTROLS = {"\t": "TAB", "\n": "LINE FEED", "\r": "CARRIAGE RETURN", "\x00": "NULL"}


class Html(str):
    """Markup that is ready to stand in a page. Any other string is text."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: str | float | bool | None) -> Html:
    """An element.

    Args:
        name: Of the element.
        children: `Html` as it is, other strings escaped, None left out.
        attributes: A trailing `_` is cut (`class_`), other `_` become `-` (`aria_label`). True is an attribute without
            a value; None and False leave it out.
    """
    head = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{head}>")
    return Html(f"<{name}{head}>{''.join(text(child) for child in children if child is not None)}</{name}>")


def text(value: str) -> Html:
    """Text with every character visible: control characters are shown by number, with their name in a tooltip."""
    if isinstance(value, Html):
        return value
    return Html(_ODD.sub(_mark, html.escape(value)))


def visible(value: str) -> str:
    """Text for where no markup can stand (attributes, the title): odd characters as `⟨U+202E⟩`."""
    return _ODD.sub(lambda found: f"⟨{_number(found[0])}⟩", value)


def _attribute(key: str, value: str | float | bool) -> str:
    key = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {key}"
    return f' {key}="{value if isinstance(value, Html) else html.escape(visible(str(value)))}"'


def _mark(found: re.Match[str]) -> str:
    character = found[0]
    name = _CONTROLS.get(character) or unicodedata.name(character, "no name")
    mark = tag("span", _number(character), class_="odd", title=name)
    return f"{mark}\n" if character == "\n" else mark


def _number(character: str) -> str:
    return f"U+{ord(character):04X}"
