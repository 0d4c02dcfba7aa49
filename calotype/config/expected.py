"""What an option expects, in words: for errors and for the table of `docs/config.md`."""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

__all__ = ["Expected", "expected"]


@dataclass(frozen=True, slots=True)
class Expected:
    """Metadata of an option's type: the words after "expected"."""

    words: str


_PLAIN: Final = {bool: "true or false", str: "a text", int: "a whole number", float: "a number"}
_FEW: Final = 2
"""Choices that are joined by "or"; more are listed."""


def expected(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """Return what values of a type are, in words; "" where a type has none.

    Args:
        annotation: The type.
        metadata: What `Annotated` adds to it.
    """
    for one in metadata:
        if isinstance(one, Expected):
            return one.words
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return expected(arguments[0], arguments[1:])
    if origin is Literal:
        words = [str(one) for one in arguments]
        return " or ".join(words) if len(words) <= _FEW else f"one of {', '.join(words)}"
    if origin in (Union, types.UnionType):
        return ", or ".join(filter(None, map(expected, arguments)))
    return _PLAIN.get(annotation, "")
