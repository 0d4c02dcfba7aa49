"""What becomes of an image's captions: filled in, added to, or replaced; and never those that a person wrote."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, get_args

from calotype.errors import ConfigError

__all__ = ["Mode", "check_mode", "merge_captions"]

Mode = Literal["fill", "add", "replace"]


def check_mode(mode: str) -> Mode:
    """The mode of that name.

    Raises:
        ConfigError: There is none.
    """
    for known in get_args(Mode):
        if mode == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"mode: found {mode!r}; expected {', '.join(get_args(Mode))}")


def merge_captions(
    mode: Mode, current: Sequence[str], answers: Sequence[str], *, made: Collection[str], force: bool
) -> tuple[str, ...] | None:
    """The captions that an image is to have; None when its own stay, whatever the answers are.

    A caption that no captioner of this dataset ever made is a person's, and is kept unless forced.

    Args:
        mode: `fill` gives captions to images without any, or with some of the very answers; `add` puts the answers
            after what is there; `replace` puts them in its place.
        current: The image's captions.
        answers: To this run's questions, as far as there are any, in their order.
        made: Every caption that was ever made for this image.
        force: Also replaces a person's.
    """
    new = tuple(dict.fromkeys(answers))
    if mode == "add":
        return (*current, *(text for text in new if text not in current))
    if mode == "fill":
        return new if set(current) <= set(new) or not current else None
    if not force and not set(current) <= set(made):
        return None
    return new or tuple(current)
