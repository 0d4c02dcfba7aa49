"""Which columns the result's data has, so that each is read back as what it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from calotype.manifest.tables.columns import find_columns
from calotype.types import Row

__all__ = ["REJECTED", "Columns", "choose_columns"]

REJECTED = "rejected"
"""The column that means the same in the source and in the result: such images are left out when it is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of a result."""

    image: str
    captions: tuple[str, ...]
    """One that holds a text (or, with `several`, a list of them), or one for each caption."""
    several: bool
    """Whether any image has more than one caption."""
    ids: bool
    sizes: bool
    weights: bool
    extras: dict[str, str]
    """The data's own columns: name in the source → in the result."""

    def values(self, row: Row) -> dict[str, Any]:
        """Everything about a row but its image, as plain values."""
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
    """Renames those of the data's own columns that would be taken for something else: `caption` becomes `caption_`.

    Args:
        image: The image column.
        captions: The caption columns, if there are any.
        several: See `Columns`.
        ids: Whether there is an `id` column.
        sizes: Whether there are `width` and `height`.
        weights: Whether there is a `weight` column.
        extras: The data's own columns.
        clean: Makes of a name one that the form can hold.
        image_is_given: The reader knows the image without its name, as in archives.
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
