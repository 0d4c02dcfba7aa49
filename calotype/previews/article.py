"""One sample on the page: the original with its crop, the image as trained, and its captions."""

from __future__ import annotations

from collections.abc import Sequence

from calotype.previews.badges import Badge
from calotype.previews.crop import crop_overlay
from calotype.previews.image_tag import image_tag
from calotype.previews.markup import Html, tag
from calotype.previews.overview import badge_list
from calotype.previews.views import Draw, SampleView
from calotype.previews.wording import NO_CAPTION, caption_section, token_section
from calotype.types import Geometry

__all__ = ["article"]

_ORIGINAL, _DRAW = 512, 224
"""Maximum longer sides on the page, in pixels."""
_FINE, _PLAIN = 86, 78
"""WebP qualities: of the image as trained, and of all others."""
_SHORT = 90
"""Maximum characters of a further draw's caption that are shown without expanding it."""


def article(sample: SampleView, *, anchor: str, number: int, of: int, side: int, badges: Sequence[Badge] = ()) -> Html:
    """Return the `article` element of one sample.

    Args:
        sample: The sample.
        anchor: The `id` of the element, unique in the page.
        number: Position in the batch, counted from 1.
        of: Number of samples in the batch.
        side: Maximum longer side of the image as trained, in pixels.
        badges: What was found in it.
    """
    heading = f"{anchor}-id"
    return tag(
        "article",
        tag(
            "header",
            tag("p", f"{number} of {of}", class_="place"),
            tag("h3", tag("a", tag("bdi", sample.id), href=f"#{anchor}"), id=heading),
            tag("p", _row(sample), class_="place"),
            badge_list(badges),
            *_notices(sample),
        ),
        tag("div", _trained(sample, side), _round_trip(sample, side), class_="results"),
        _original(sample),
        _draws(sample),
        tag(
            "div",
            caption_section(sample.caption, captions=sample.captions),
            token_section(sample.tokens),
            _geometry(sample.geometry),
            class_="words",
        ),
        class_="sample",
        id=anchor,
        data_id=sample.id,
        data_badges=" ".join(badge.key for badge in badges),
        aria_labelledby=heading,
        tabindex=-1,
    )


def _row(sample: SampleView) -> str:
    again = f", repeat {sample.key.repeat}" if sample.key.repeat else ""
    return f"row {sample.key.index}{again}"


def _notices(sample: SampleView) -> list[Html]:
    notices: list[tuple[str, ...]] = []
    if sample.stands_in_for is not None:
        missing = tag("code", tag("bdi", sample.stands_in_for))
        notices.append(("⚠ Stands in for ", missing, ", which could not be read."))
    if not sample.repeatable:
        notices.append(("⚠ Made a second time, it came out with other pixels: no run will repeat this image.",))
    return [tag("p", *words, class_="notice", role="note") for words in notices]


def _original(sample: SampleView) -> Html:
    geometry = sample.geometry
    height, width = geometry.original_size
    shown = image_tag(
        sample.original,
        alt=f"Original of {sample.id}, with the part kept for training framed",
        side=_ORIGINAL,
        quality=_PLAIN,
    )
    plate = tag("div", shown, crop_overlay(geometry, [draw.geometry for draw in sample.draws]), class_="plate")
    label = tag("figcaption", tag("b", "Original"), tag("span", f"{width} × {height} px"))
    return tag("figure", plate, label, class_="original")


def _trained(sample: SampleView, side: int) -> Html:
    height, width = sample.image.shape[:2]
    shown = image_tag(sample.image, alt=f"{sample.id} as trained", side=side, quality=_FINE)
    size = tag("span", f"{width} × {height} px", class_="size")
    zoom = tag("button", "Zoom", type="button", class_="zoom", aria_label=f"Zoom {sample.id}", hidden=True)
    label = tag("figcaption", tag("b", "As trained"), size, *_turns(sample.geometry), zoom)
    return tag("figure", shown, label, class_="trained")


def _round_trip(sample: SampleView, side: int) -> Html | None:
    trip = sample.round_trip
    if trip is None:
        return None
    shown = image_tag(trip.image, alt=f"{sample.id} after the autoencoder", side=side, quality=_FINE)
    slider = tag(
        "input",
        type="range",
        min=0,
        max=100,
        value=50,
        aria_label=f"{sample.id}: as trained on the left, after the autoencoder on the right",
        hidden=True,
    )
    label = tag(
        "figcaption",
        tag("b", "After the autoencoder"),
        tag("span", f"PSNR {trip.psnr:.1f} dB"),
        tag("span", "left of the line: as trained", class_="side", hidden=True),
    )
    return tag("figure", tag("div", shown, class_="compare"), slider, label, class_="round-trip")


def _draws(sample: SampleView) -> Html | None:
    if not sample.draws:
        return None
    figures = [_draw(number, draw, sample) for number, draw in enumerate(sample.draws, start=1)]
    return tag("section", tag("h4", "Other epochs"), *figures, class_="draws")


def _draw(number: int, draw: Draw, sample: SampleView) -> Html:
    shown = image_tag(draw.image, alt=f"{sample.id} as drawn in epoch {draw.epoch}", side=_DRAW, quality=_PLAIN)
    pin = tag("input", type="checkbox", aria_label=f"Show the crop of epoch {draw.epoch} on the original")
    pinned = tag("label", pin, tag("span", str(number), class_="number", aria_hidden="true"), shown)
    label = tag("figcaption", tag("b", f"Epoch {draw.epoch}"), *_turns(draw.geometry), _draw_text(draw, sample))
    return tag("figure", pinned, label, class_=f"draw draw-{number}")


def _draw_text(draw: Draw, sample: SampleView) -> Html:
    if draw.text == sample.caption.text:
        return tag("p", tag("em", "the same caption"))
    if not draw.text:
        return tag("p", tag("em", NO_CAPTION if sample.caption.raw else "(empty)"))
    if len(draw.text) <= _SHORT:
        return tag("p", draw.text, dir="auto")
    start = f"{draw.text[: _SHORT - 20].rstrip()}…"
    return tag("details", tag("summary", start, dir="auto"), tag("p", draw.text, dir="auto"))


def _turns(geometry: Geometry) -> list[Html]:
    return [tag("span", turn) for turn in (_flips(geometry), _rotation(geometry)) if turn]


def _flips(geometry: Geometry) -> str:
    horizontal, vertical = geometry.flip
    sides = [name for name, flipped in (("left–right", horizontal), ("top–bottom", vertical)) if flipped]
    return f"flipped {' and '.join(sides)}" if sides else ""


def _rotation(geometry: Geometry) -> str:
    if geometry.rotate == 0.0:
        return ""
    way = "counter-clockwise" if geometry.rotate > 0 else "clockwise"
    return f"turned {abs(geometry.rotate):.1f}° {way}"


def _geometry(geometry: Geometry) -> Html:
    (height, width), (top, left, rows, columns) = geometry.original_size, geometry.box
    scale: list[str] = [f"× {geometry.scale:.3f}"]
    if geometry.scale > 1.0:
        scale += [" ", tag("strong", "⚠ enlarged", class_="warning")]
    facts: list[tuple[str, list[str]]] = [
        ("Original", [f"{width} × {height} px"]),
        ("Kept", [f"{columns} × {rows} px from left {left}, top {top}"]),
        ("Area kept", [f"{100 * rows * columns / (height * width):.1f} %"]),
        ("Scale", scale),
        ("Target", [f"{geometry.target_size[1]} × {geometry.target_size[0]} px"]),
        ("crop_top_left", [f"top {geometry.crop_top_left[0]}, left {geometry.crop_top_left[1]}"]),
        ("Flip", [_flips(geometry) or "none"]),
        ("Rotate", [_rotation(geometry) or "none"]),
    ]
    rows_ = [tag("tr", tag("th", name, scope="row"), tag("td", *value)) for name, value in facts]
    return tag("section", tag("h4", "Geometry"), tag("table", tag("tbody", *rows_)), class_="geometry")
