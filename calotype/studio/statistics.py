"""Statistics of the rows that a filter shows: tags, words, tokens, buckets, sizes and folders, each with its filter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from calotype.studio.rows import Rows
from calotype.studio.tagging import tags_of

__all__ = ["statistics"]

_MOST: Final = 200
"""Entries per list."""
_BINS: Final = 8
_WORD: Final = re.compile(r"\w[\w'’-]*")
_MANY_TAGS: Final = 60
"""A part of a caption with more characters is a sentence, not a tag."""


def statistics(rows: Rows, numbers: Sequence[int], *, tokenizers: Sequence[str], limits: Sequence[int]) -> list[Any]:
    """Return the lists of the panel, each entry with its number of images and the filter that shows them.

    Args:
        rows: The rows.
        numbers: Those that are counted.
        tokenizers: Keys of the token counts.
        limits: Maximum length of each tokenizer.
    """
    captions = [rows.state(number).captions for number in numbers]
    tags, words = Counter[str](), Counter[str]()
    for own in captions:
        tags.update({tag for text in own for tag in tags_of(text) if len(tag) <= _MANY_TAGS})
        words.update({word.casefold() for text in own for word in _WORD.findall(text)})
    chosen = np.asarray(numbers, dtype=np.intp)
    found = [
        _counted("tags", "Tags", tags, lambda tag: f"tag:{_quoted(tag)}"),
        _counted("words", "Words", words, lambda word: f"word:{_quoted(word)}"),
    ]
    for key, limit in zip(tokenizers, limits, strict=True):
        name = f"tokens.{key}"
        found.append(_binned(name, f"Tokens, {key}", name, rows.number(name)[chosen], split=limit))
    found += [
        _counted("buckets", "Buckets", Counter(filter(None, rows.buckets_of(numbers))), lambda name: f"bucket:{name}"),
        _binned("pixels", "Sizes, megapixels", "pixels", rows.number("pixels")[chosen], unit=1e6),
        _counted(
            "folders",
            "Folders",
            Counter(rows.ids[number].rpartition("/")[0] for number in numbers),
            lambda folder: f"folder:{_quoted(folder)}" if folder else "folder:.",
        ),
    ]
    return [one for one in found if one["entries"]]


def _counted(key: str, title: str, counts: Counter[str], filter: Callable[[str], str]) -> dict[str, Any]:
    entries = [
        {"text": text or ".", "count": count, "filter": filter(text)} for text, count in counts.most_common(_MOST)
    ]
    return {"key": key, "title": title, "entries": entries, "distinct": len(counts)}


def _binned(
    key: str, title: str, field: str, values: npt.NDArray[np.float64], *, split: float | None = None, unit: float = 1.0
) -> dict[str, Any]:
    """Return a histogram with round borders; `split` is one of them."""
    known = values[~np.isnan(values)]
    entries = []
    borders = _borders(known / unit, None if split is None else split / unit)
    for low, high in pairwise(borders):
        count = int(((known > low * unit) & (known <= high * unit)).sum())
        if count:
            text = f"{low:g} – {high:g}"
            entries.append(
                {"text": text, "count": count, "filter": f"{field}>{low * unit:.10g} {field}<={high * unit:.10g}"}
            )
    return {"key": key, "title": title, "entries": entries, "distinct": len(entries)}


def _borders(values: npt.NDArray[np.float64], split: float | None) -> list[float]:
    if not len(values):
        return []
    most = float(values.max())
    step = 10.0 ** np.floor(np.log10(max(most, 1e-9) / _BINS))
    step = float(next(step * by for by in (1, 2, 5, 10, 20) if most / (step * by) <= _BINS))
    borders: Iterable[float] = (round(step * place, 10) for place in range(int(np.ceil(most / step)) + 1))
    found = {float(border) for border in borders} | {-1.0 if values.min() <= 0 else 0.0}
    return sorted(found | ({float(split)} if split is not None and split < most else set()))


def _quoted(text: str) -> str:
    if re.fullmatch(r"[^\s()\"]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
