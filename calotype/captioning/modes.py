"""The modes: how new captions are merged with existing ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, get_args

from calotype.errors import ConfigError

__all__ = ["Mode", "check_mode", "merge_captions"]

Mode = Literal["fill", "add", "replace"]


def check_mode(mode: str) -> Mode:
    """Return the mode of that name.

    Raises:
        ConfigError: There is no such mode.
    """
    for known in get_args(Mode):
        if mode == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"mode: found {mode!r}; expected {', '.join(get_args(Mode))}")


def merge_captions(
    mode: Mode, current: Sequence[str], new: Sequence[str], *, generated: Collection[str], force: bool
) -> tuple[str, ...] | None:
    """Return the new captions of an image; None if they do not change.

    A caption that no captioner of this dataset has generated was written by a person; it is replaced only with `force`.

    Args:
        mode: `fill` captions images that have no captions, or only some of `new`; `add` appends to existing captions;
            `replace` replaces them.
        current: The captions of the image.
        new: The captions of this run, in order, as far as there are any.
        generated: Every caption that was ever generated for this image.
        force: Also replace captions that a person wrote.
    """
    unique = tuple(dict.fromkeys(new))
    if mode == "add":
        return (*current, *(text for text in unique if text not in current))
    if mode == "fill":
        return unique if set(current) <= set(unique) or not current else None
    if not force and not set(current) <= set(generated):
        return None
    return unique or tuple(current)
