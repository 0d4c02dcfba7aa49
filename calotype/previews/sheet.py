"""The contact sheet: the batches of a preview as one image, with a tile per sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from calotype.previews.crop import corners
from calotype.previews.views import BatchView, Pixels, SampleView
from calotype.previews.wording import NO_CAPTION

__all__ = ["contact_sheet"]

_TRAINED, _ORIGINAL, _DRAW = 288, 184, 56
"""Maximum longer sides in pixels: of the image as trained, the original, and the further draws."""
_GAP, _SMALL_GAP = 20, 8
_TILE = _TRAINED + _SMALL_GAP + _ORIGINAL
_COLUMNS, _DRAWS_IN_A_ROW = 3, 3
_LINE, _LINES = 18, 4
_PAPER, _INK, _FAINT = (250, 250, 247), (28, 28, 28), (110, 110, 106)
_FRAME, _UNDER = (255, 214, 10), (0, 0, 0)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(batches: Sequence[BatchView], *, title: str) -> Image.Image:
    """Render each sample as trained, beside the original with its crop framed and the further draws.

    Args:
        batches: The batches, in order.
        title: The headline.
    """
    blocks = [_batch(batch) for batch in batches]
    width = max((block.width for block in blocks), default=_TILE) + 2 * _GAP
    height = 2 * _GAP + _LINE + sum(block.height + _GAP for block in blocks)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), _fit(title, _font(16), width - 2 * _GAP), _INK, _font(16))
    top = 2 * _GAP + _LINE
    for block in blocks:
        sheet.paste(block, (_GAP, top))
        top += block.height + _GAP
    return sheet


def _batch(batch: BatchView) -> Image.Image:
    tiles = [_tile(sample) for sample in batch.samples]
    columns = max(1, min(_COLUMNS, math.ceil(math.sqrt(len(tiles)))))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    size = (columns * (_TILE + _GAP) - _GAP, _LINE + _SMALL_GAP + sum(heights) + _GAP * max(0, len(rows) - 1))
    block = Image.new("RGB", size, _PAPER)
    name = f"epoch {batch.epoch}, step {batch.step} of {batch.steps}, seed {batch.seed}"
    ImageDraw.Draw(block).text((0, 0), name, _FAINT, _font(14))
    top = _LINE + _SMALL_GAP
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            block.paste(tile, (column * (_TILE + _GAP), top))
        top += height + _GAP
    return block


def _tile(sample: SampleView) -> Image.Image:
    trained, beside = _fitted(sample.image, _TRAINED), _beside(sample)
    text = sample.caption.text
    lines = _wrap(text or (NO_CAPTION if sample.caption.dropped else "(empty)"), _font(14))
    top = max(trained.height, beside.height) + 4
    tile = Image.new("RGB", (_TILE, top + (1 + len(lines)) * _LINE), _PAPER)
    tile.paste(trained, (0, 0))
    tile.paste(beside, (_TRAINED + _SMALL_GAP, 0))
    draw = ImageDraw.Draw(tile)
    draw.text((0, top), _fit(_facts(sample), _font(12), _TILE), _FAINT, _font(12))
    for row, words in enumerate(lines, start=1):
        draw.text((0, top + row * _LINE), words, _INK if text else _FAINT, _font(14))
    return tile


def _beside(sample: SampleView) -> Image.Image:
    """Return the original with the further draws below it."""
    original, others = _framed(sample), [_fitted(draw.image, _DRAW) for draw in sample.draws]
    places, bottom = [], original.height
    for start in range(0, len(others), _DRAWS_IN_A_ROW):
        row = others[start : start + _DRAWS_IN_A_ROW]
        places += [(column * (_DRAW + _SMALL_GAP), bottom + _SMALL_GAP) for column in range(len(row))]
        bottom += _SMALL_GAP + max(other.height for other in row)
    beside = Image.new("RGB", (_ORIGINAL, bottom), _PAPER)
    beside.paste(original, (0, 0))
    for other, place in zip(others, places, strict=True):
        beside.paste(other, place)
    return beside


def _framed(sample: SampleView) -> Image.Image:
    original = _fitted(sample.original, _ORIGINAL)
    height, width = sample.geometry.original_size
    frame = [
        (x / width * (original.width - 1), y / height * (original.height - 1)) for x, y in corners(sample.geometry)
    ]
    draw = ImageDraw.Draw(original)
    # A wide dark line below a narrow light one is visible on any image.
    draw.polygon(frame, outline=_UNDER, width=3)
    draw.polygon(frame, outline=_FRAME, width=2)
    return original


def _facts(sample: SampleView) -> str:
    height, width = sample.image.shape[:2]
    # Pillow's default font has no multiplication sign.
    facts = [sample.id, f"{width} x {height} px"]
    if sample.round_trip is not None:
        facts.append(f"PSNR {sample.round_trip.psnr:.1f} dB")
    if sample.stands_in_for is not None:
        facts.append(f"stands in for {sample.stands_in_for}")
    return " · ".join(facts)


def _fitted(pixels: Pixels, side: int) -> Image.Image:
    """Return an image of at most `side` pixels per side; it is never enlarged."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=None)
    return image


def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _wrap(text: str, font: Font) -> list[str]:
    """Wrap a caption into at most `_LINES` lines of a tile's width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > _TILE:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], f"{lines[_LINES - 1]} …"]
    return [_fit(words, font, _TILE) for words in lines]


def _fit(text: str, font: Font, width: int) -> str:
    """Return the text on one line, truncated to a width in pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
