"""`Columns`: the columns of the result, named so that each is read back with its meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from calotype.manifest.tables.columns import find_columns
from calotype.types import Row

__all__ = ["REJECTED", "Columns", "choose_columns"]

REJECTED = "rejected"
"""The column that keeps its meaning: images marked by it are left out when the result is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of a result."""

    image: str
    captions: tuple[str, ...]
    """One column of texts (with `several`, of lists of texts), or one column for each caption."""
    several: bool
    """Whether any image has more than one caption."""
    ids: bool
    sizes: bool
    weights: bool
    extras: dict[str, str]
    """Further columns of the data: name in the source → name in the result."""

    def values(self, row: Row) -> dict[str, Any]:
        """Return the values of a row, without its image, by column."""
        given = [text for text in row.captions if text]
        values: dict[str, Any] = {}
        if len(self.captions) == 1:
            values[self.captions[0]] = given if self.several else next(iter(given), None)
        elif self.captions:
            padded = [*given, *[None] * (len(self.captions) - len(given))]
            values.update(zip(self.captions, padded, strict=True))
        if self.ids:
            values["id"] = row.id
        if self.sizes:
            values |= {"width": row.width, "height": row.height}
        if self.weights:
            values["weight"] = row.weight
        values.update((new, row.extra[old]) for old, new in self.extras.items())
        return values


def choose_columns(
    *,
    image: str,
    captions: tuple[str, ...],
    several: bool,
    ids: bool,
    sizes: bool,
    weights: bool,
    extras: Sequence[str],
    clean: Callable[[str], str],
    image_is_given: bool,
) -> Columns:
    """Rename further columns that would be read with another meaning: `caption` becomes `caption_`.

    Args:
        image: The image column.
        captions: The caption columns, if any.
        several: See `Columns`.
        ids: Whether there is an `id` column.
        sizes: Whether there are `width` and `height`.
        weights: Whether there is a `weight` column.
        extras: Names of the further columns.
        clean: Converts a name to one that the form can hold.
        image_is_given: The reader finds the image without a column, as in archives.
    """
    ours = [image, *captions, *(["id"] if ids else []), *(["width", "height"] if sizes else [])]
    ours += ["weight"] if weights else []
    given: dict[str, tuple[str, ...] | None] = {"image": (image,)} if image_is_given else {}
    renamed: dict[str, str] = {}
    for name in extras:
        new = clean(name)
        taken = {*ours, *renamed.values()}
        kept = new.strip().lower() == REJECTED
        while new in taken or (not kept and new in find_columns([*ours, new], given, "the result").used):
            new += "_"
        renamed[name] = new
    return Columns(
        image=image, captions=captions, several=several, ids=ids, sizes=sizes, weights=weights, extras=renamed
    )
