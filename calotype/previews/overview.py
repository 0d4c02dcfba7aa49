"""The top of the page: a verdict whose badges filter, and a thumbnail of every sample."""

from __future__ import annotations

from collections.abc import Sequence

from calotype.previews.badges import Badge, verdict
from calotype.previews.image_tag import image_tag
from calotype.previews.markup import Html, tag
from calotype.previews.views import BatchView, SampleView

__all__ = ["anchor_of", "badge_list", "strip", "verdict_line"]

_THUMBNAIL, _QUALITY = 112, 70
"""Longer side in pixels, and WebP quality."""


def anchor_of(batch: int, sample: int) -> str:
    """Return the id of a sample's article; both are counted from 1."""
    return f"batch-{batch}-sample-{sample}"


def verdict_line(found: Sequence[Sequence[tuple[Badge, ...]]]) -> Html | None:
    """Return what was found, as buttons that filter, and what was not; None without samples."""
    if not any(found):
        return None
    there, absent = verdict(found)
    buttons = [
        tag(
            "button",
            badge.counted(number),
            type="button",
            class_="badge",
            data_badge=badge.key,
            aria_pressed="false",
            disabled=True,  # until the script runs
        )
        for badge, number in there
    ]
    none = tag("span", ", ".join(absent), class_="none") if absent else None
    return tag("div", *buttons, none, class_="verdict", role="group", aria_label="Filter by what was found")


def badge_list(badges: Sequence[Badge]) -> Html | None:
    """Return the badges of one sample; None without any."""
    if not badges:
        return None
    return tag("span", *(tag("span", badge.label, class_="badge") for badge in badges), class_="badges")


def strip(batch: BatchView, number: int, found: Sequence[tuple[Badge, ...]]) -> Html:
    """Return the thumbnails of a batch, links to its samples."""
    thumbnails = [
        tag("li", _thumbnail(sample, badges, anchor_of(number, place)))
        for place, (sample, badges) in enumerate(zip(batch.samples, found, strict=True), start=1)
    ]
    name = tag("p", f"Step {batch.step}", class_="place")
    return tag("li", name, tag("ul", *thumbnails, class_="thumbs"), class_="strip", data_batch=f"batch-{number}")


def _thumbnail(sample: SampleView, badges: Sequence[Badge], anchor: str) -> Html:
    image = image_tag(sample.image, alt="", side=_THUMBNAIL, quality=_QUALITY)
    name = ", ".join([sample.id, *(badge.label for badge in badges)])
    return tag("a", image, badge_list(badges), class_="thumb", href=f"#{anchor}", title=sample.id, aria_label=name)
