"""A contact sheet: one batch as the model gets it, a picture with its final caption to each tile."""

from __future__ import annotations

import math

import torch
from PIL import Image, ImageDraw, ImageFont

from calotype.types import Batch

__all__ = ["contact_sheet"]

_TILE = 288
"""Pixels each way that a picture may take."""
_GAP = 16
_LINES = 4
_PAPER, _INK, _FAINT = (250, 250, 247), (28, 28, 28), (120, 120, 116)


def contact_sheet(batch: Batch, *, title: str) -> Image.Image:
    """Draws a batch.

    Args:
        batch: From a Loader over a dataset with `include=("id", "text")`; `img` float (B, 3, H, W) in [-1, 1].
        title: The line on top.
    """
    images: torch.Tensor = batch["img"].to("cpu", torch.float32)
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()  # (B, H, W, 3)
    columns = max(1, min(4, math.ceil(math.sqrt(len(pixels)))))
    rows = math.ceil(len(pixels) / columns)
    font, small = ImageFont.load_default(14), ImageFont.load_default(12)
    line = 18
    scale = min(_TILE / pixels.shape[2], _TILE / pixels.shape[1])
    picture = (round(pixels.shape[2] * scale), round(pixels.shape[1] * scale))
    cell = (_TILE, picture[1] + (_LINES + 1) * line + _GAP)

    sheet = Image.new("RGB", (_GAP + columns * (cell[0] + _GAP), 2 * _GAP + line + rows * cell[1]), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, _INK, font)
    for number, (tile, text, id) in enumerate(zip(pixels, batch["text"], batch["id"], strict=True)):
        left = _GAP + number % columns * (cell[0] + _GAP)
        top = 2 * _GAP + line + number // columns * cell[1]
        sheet.paste(Image.fromarray(tile).resize(picture, Image.Resampling.LANCZOS), (left, top))
        top += picture[1] + 4
        draw.text((left, top), _fit(draw, id, small, _TILE), _FAINT, small)
        for row, words in enumerate(_wrap(draw, text or "(no caption: dropped for guidance)", font)):
            draw.text((left, top + (row + 1) * line), words, _INK if text else _FAINT, font)
    return sheet


def _wrap(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Breaks a caption into at most `_LINES` lines of a tile's width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font) > _TILE:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], lines[_LINES - 1] + " …"]
    return [_fit(draw, words, font, _TILE) for words in lines]


def _fit(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "…", font) > width:
        text = text[:-1]
    return text.rstrip() + "…"
