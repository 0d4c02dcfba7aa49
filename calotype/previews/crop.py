"""The crop of an image as an SVG overlay on the original."""

from __future__ import annotations

import math
from collections.abc import Sequence

from calotype.previews.markup import Html, tag
from calotype.types import Geometry

__all__ = ["corners", "crop_overlay", "draw_rules"]

Point = tuple[float, float]
"""(x, y) in pixels of the original, from its top left corner."""


def corners(geometry: Geometry) -> tuple[Point, Point, Point, Point]:
    """Return the sample's corners in the original: top left, top right, bottom right, bottom left, before any flip.

    A counter-clockwise rotation of the image samples it on a grid rotated clockwise. The grid is rotated in pixels of
    the sample and then stretched to the box, as in `calotype.transforms.resample`.
    """
    top, left, height, width = geometry.box
    rows, columns = geometry.target_size
    cos, sin = math.cos(math.radians(geometry.rotate)), math.sin(math.radians(geometry.rotate))

    def source(x: float, y: float) -> Point:
        # x, y: in pixels of the sample, from its centre.
        turned_x, turned_y = cos * x - sin * y, sin * x + cos * y
        return left + width / 2 + turned_x * width / columns, top + height / 2 + turned_y * height / rows

    right, bottom = columns / 2, rows / 2
    return source(-right, -bottom), source(right, -bottom), source(right, bottom), source(-right, bottom)


def crop_overlay(kept: Geometry, others: Sequence[Geometry]) -> Html:
    """Return an SVG of the original's shape: the crop has a frame, and everything outside is dimmed.

    Args:
        kept: Geometry of the trained image.
        others: Geometries of the further draws. Each has a dashed frame with its number (from 1), unless its crop
            equals that of the trained image.
    """
    height, width = kept.original_size
    outline = _points(kept)
    away = tag("path", class_="away", fill_rule="evenodd", d=f"M0 0H{width}V{height}H0ZM{' '.join(outline)}Z")
    # A wide dark line below a narrow light one is visible on any image.
    frame = [tag("polygon", class_=name, points=" ".join(outline)) for name in ("under", "kept")]
    dashed = [_other(number, other, kept) for number, other in enumerate(others, start=1)]
    return tag("svg", away, *dashed, *frame, class_="crop", viewBox=f"0 0 {width} {height}", aria_hidden="true")


def draw_rules(most: int) -> str:
    """Return CSS rules that emphasise the frame of a draw on the original while it is hovered, focused or pinned."""
    rules = []
    for n in range(1, most + 1):
        chosen = f".draw-{n}:hover, .draw-{n} :checked, .draw-{n} :focus-visible"
        rules.append(f".sample:has({chosen}) .of-{n} {{ --narrow: 3px; --wide: 5px; }}\n")
    return "".join(rules)


def _other(number: int, geometry: Geometry, kept: Geometry) -> Html | None:
    points = _points(geometry)
    if points == _points(kept):
        return None
    size = max(geometry.original_size) / 20
    x, y = corners(geometry)[0]
    label = tag("text", str(number), x=f"{x + size * 0.35:.1f}", y=f"{y + size:.1f}", font_size=f"{size:.1f}")
    frames = [tag("polygon", class_=name, points=" ".join(points)) for name in ("under", "dashed")]
    return tag("g", *frames, label, class_=f"other of-{number}")


def _points(geometry: Geometry) -> list[str]:
    return [f"{x:.2f},{y:.2f}" for x, y in corners(geometry)]
