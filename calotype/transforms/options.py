"""The forms that a transform's options come in: a value or a list, options before callables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from calotype.config.instantiate import COMPONENT, build
from calotype.config.section import Section, plain
from calotype.errors import ConfigError

__all__ = ["as_list", "build_list", "make_transform", "split_list"]

T = TypeVar("T")


def as_list(value: Any) -> list[Any]:
    """Return the items of a sequence, or the one value as a list."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def split_list(items: Sequence[Any]) -> tuple[Any, list[Any], int]:
    """Return the options that a list begins with, the callables after them, and the position of the first of these."""
    rest = list(items)
    if rest and isinstance(rest[0], Mapping) and COMPONENT not in rest[0]:
        return rest[0], rest[1:], 1
    return {}, rest, 0


def build_list(steps: Sequence[Any], *, where: str, first: int) -> list[Any]:
    """Build the callables of a list.

    Args:
        steps: Callables and `_component_` mappings.
        where: The list's name, for errors.
        first: Position of the first of them in it.
    """
    return [build(plain(step), where=f"{where}[{position}]") for position, step in enumerate(steps, start=first)]


def make_transform(kind: Callable[..., T], options: Section, custom: Any, steps: Sequence[Any], *, where: str) -> T:
    """Make a transform of its options.

    Args:
        kind: The transform's class.
        options: Its section; its keys are arguments of the class.
        custom: The section's `custom`.
        steps: Callables that follow those of `custom`.
        where: The option's name, for errors.

    Raises:
        ConfigError: A value is wrong.
    """
    first = as_list(build(custom, where=f"{where}.custom"))
    try:
        return kind(**{**options.given(), "custom": [*first, *steps]})
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from error
