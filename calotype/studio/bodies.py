"""The values of a request's body, checked one by one: the page is not trusted to send what was agreed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from calotype.manifest.strict_json import loads

__all__ = ["BadRequestError", "field", "is_whole", "parse_body", "texts_of"]

_LONGEST: Final = 20_000
"""Characters of a caption."""
_LARGEST: Final = 1 << 63
_NEEDED: Final = object()
_NAMES: Final = {
    str: "a text",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    int: "a whole number",
    (int, float): "a number",
}


class BadRequestError(Exception):
    """The page asks in a form that is not the one agreed on."""


def parse_body(body: bytes) -> dict[str, Any]:
    """The object that a request sends, nested no deeper than a page's are, with numbers that any code can take.

    Raises:
        BadRequestError: It is none.
    """
    try:
        data = loads(body)
    except (ValueError, RecursionError) as problem:
        raise BadRequestError(f"the body is not JSON: {problem}") from None
    if not isinstance(data, dict):
        raise BadRequestError("the body is JSON, and no object")
    _check_numbers(data)
    return data


def _check_numbers(value: Any) -> None:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            _check_numbers(one)
    elif isinstance(value, int | float) and not abs(value) < _LARGEST:
        raise BadRequestError("the body holds NaN, or a number beyond 2^63")


def field(data: Mapping[str, Any], name: str, type_: Any, default: Any = _NEEDED) -> Any:
    """A value of the body; what may be left out may be null too."""
    value = data.get(name)
    if value is None:
        if default is _NEEDED:
            raise BadRequestError(f"{name}: is missing")
        return default
    if not isinstance(value, type_) or (isinstance(value, bool) and type_ is not bool):
        raise BadRequestError(f"{name}: found {value!r:.80}, expected {_NAMES[type_]}")
    return value


def is_whole(value: Any) -> bool:
    """True is no number."""
    return isinstance(value, int) and not isinstance(value, bool)


def texts_of(values: list[Any], name: str, *, most: int) -> list[str]:
    """A list of texts that can be captions, or looked for in them."""
    if len(values) > most:
        raise BadRequestError(f"{name}: found {len(values)}, expected at most {most}")
    for text in values:
        if not isinstance(text, str) or len(text) > _LONGEST:
            raise BadRequestError(f"{name}: expected texts of at most {_LONGEST:,} characters")
        if "\0" in text:
            raise BadRequestError(f"{name}: a text holds a NUL character, which no file of captions keeps")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadRequestError(f"{name}: a text holds half a character (a lone surrogate)") from None
    return values
