"""Checks of options as YAML gives them: each returns the value in its one normal form, or names key, found and fix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from calotype.errors import ConfigError, unknown_key

__all__ = ["as_list", "at_least", "known_keys", "pair", "plain", "positive_int", "probability", "span"]


def plain(value: Any) -> Any:
    """Mappings and sequences of whatever kind (OmegaConf's, say) as dicts and lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | tuple):
        return [plain(item) for item in value]
    return value


def as_list(value: Any) -> list[Any]:
    """The items of a sequence, or the one value that stands for a list of itself."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def known_keys(options: Mapping[str, Any], known: Sequence[str], *, where: str) -> None:
    """Refuses a key that is not in `known`, naming the nearest one that is."""
    for key in options:
        if key not in known:
            raise unknown_key(where, str(key), known)


def probability(value: Any, *, key: str, true: float = 1.0) -> float:
    """A number in [0, 1]; `true` is what YAML's `true` stands for."""
    if isinstance(value, bool):
        return true if value else 0.0
    if _is_number(value) and 0.0 <= value <= 1.0:
        return float(value)
    raise ConfigError(f"{key}: found {value!r}; expected a probability from 0 to 1, such as 0.5")


def positive_int(value: Any, *, key: str, example: int) -> int:
    """A whole number of at least 1."""
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1:
        return int(value)
    raise ConfigError(f"{key}: found {value!r}; expected a whole number of at least 1, such as {example}")


def at_least(value: Any, *, key: str, low: float, example: str) -> float:
    """A number, `low` or above."""
    if _is_number(value) and value >= low:
        return float(value)
    raise ConfigError(f"{key}: found {value!r}; expected a number of at least {low:g}, such as {example}")


def pair(value: Any, *, key: str, example: str) -> tuple[Any, Any]:
    """A sequence of two."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        return value[0], value[1]
    raise ConfigError(f"{key}: found {value!r}; expected two values, such as {example}")


def span(value: Any, *, key: str, low: float, high: float, example: str) -> tuple[float, float]:
    """Two numbers in rising order, both in [`low`, `high`]."""
    first, second = pair(value, key=key, example=example)
    if _is_number(first) and _is_number(second) and low <= first <= second <= high:
        return float(first), float(second)
    raise ConfigError(
        f"{key}: found {value!r}; expected two numbers from {low:g} to {high:g}, the smaller first, such as {example}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
