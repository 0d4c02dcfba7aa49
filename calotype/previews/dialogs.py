"""The page's two dialogs: its keys, and an image at its true pixels. The script opens them."""

from __future__ import annotations

from typing import Final

from calotype.previews.markup import Html, tag

__all__ = ["keys_dialog", "zoom_dialog"]

_KEYS: Final = (
    (("j", "→"), "next sample"),
    (("k", "←"), "previous sample"),
    (("z",), "zoom to the true pixels"),
    (("c",), "crops on the originals"),
    (("t",), "all tokens"),
    (("/",), "search in captions and ids"),
    (("a",), "show all samples again"),
    (("?",), "these keys"),
    (("Esc",), "close"),
)
_SCALES: Final = (1, 2, 4)


def keys_dialog() -> Html:
    """Return the list of keys."""
    rows = [
        tag("div", tag("dt", *(tag("kbd", key) for key in keys)), tag("dd", meaning), class_="key")
        for keys, meaning in _KEYS
    ]
    heading = tag("h2", "Keys", id="keys-name")
    return tag("dialog", tag("header", heading, _close()), tag("dl", *rows), id="keys", aria_labelledby="keys-name")


def zoom_dialog() -> Html:
    """Return the frame in which the script shows one image."""
    scales = [
        tag("button", f"{scale}:1", type="button", data_scale=scale, aria_pressed=str(scale == 1).lower())
        for scale in _SCALES
    ]
    head = tag(
        "header",
        tag("h2", "", id="zoom-name"),
        tag("p", class_="facts", aria_live="polite"),
        tag("div", *scales, class_="scales", role="group", aria_label="Scale"),
        _close(),
    )
    slider = tag("input", type="range", min=0, max=100, value=50, aria_label="Round trip", hidden=True)
    plate = tag("div", tag("div", class_="compare"), class_="pan", tabindex=0, role="group", aria_label="Image")
    return tag("dialog", head, slider, plate, id="zoom", aria_labelledby="zoom-name")


def _close() -> Html:
    return tag("button", "Close", type="button", class_="close")
