"""HTML from plain values: only results of `tag` are markup, and all other strings are escaped."""

from __future__ import annotations

import html
import re
import unicodedata

from calotype.terminal import CONTROLS

__all__ = ["Html", "tag", "text", "visible"]

_VOID = {"img", "input", "link", "meta", "wbr"}

_ODD = re.compile(f"[{CONTROLS}\xa0\u2000-\u200a\u202f\u205f]")
"""Characters that a reader of the page can't see but a tokenizer encodes: invisible ones, direction marks, lone
surrogates, unusual spaces."""

_CONTROLS = {"\t": "TAB", "\n": "LINE FEED", "\r": "CARRIAGE RETURN", "\x00": "NULL"}


class Html(str):
    """Markup. Any other string is text, and escaped."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: str | float | bool | None) -> Html:
    """Return an element.

    Args:
        name: Name of the element.
        children: `Html` is inserted unchanged, other strings are escaped, None is skipped.
        attributes: A trailing `_` is removed (`class_`), other `_` become `-` (`aria_label`). True is an attribute
            without a value; None and False omit it.
    """
    head = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{head}>")
    return Html(f"<{name}{head}>{''.join(text(child) for child in children if child is not None)}</{name}>")


def text(value: str) -> Html:
    """Return text with every character visible: control characters by code point, with their name as a tooltip."""
    if isinstance(value, Html):
        return value
    return Html(_ODD.sub(_mark, html.escape(value)))


def visible(value: str) -> str:
    """Return text without markup, for attributes and the title, with invisible characters written as `⟨U+202E⟩`."""
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
