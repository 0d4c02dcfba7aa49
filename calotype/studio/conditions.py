"""The conditions of a filter, evaluated on the columns of all rows at once."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "FLAGS",
    "NUMBERS",
    "TEXTS",
    "AllOf",
    "AnyOf",
    "Columns",
    "Compares",
    "Contains",
    "Everything",
    "Is",
    "Matches",
    "Not",
    "Query",
]

Mask = npt.NDArray[np.bool_]

TEXTS: Final = ("bucket", "caption", "folder", "id", "tag", "word")
"""Fields that are searched by `:`."""
NUMBERS: Final = ("aspect", "captions", "height", "pixels", "tokens", "width", "words")
"""Fields that are compared; `tokens.KEY` is one tokenizer's count."""
FLAGS: Final = ("duplicate", "long", "missing", "rejected", "unreadable")
"""Values of `is:`."""

_COMPARE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}


class Columns(Protocol):
    """The columns that a query is evaluated on, all of one length."""

    def __len__(self) -> int: ...

    def text(self, name: str) -> Sequence[str]:
        """Return casefolded texts, those of one row joined by NUL. `name` is `bucket`, `caption` or `id`."""
        ...

    def number(self, name: str) -> npt.NDArray[np.float64]:
        """Return numbers, NaN where unknown. `name` is one of `NUMBERS`, or `tokens.KEY`."""
        ...

    def flag(self, name: str) -> Mask:
        """Return a mask. `name` is one of `FLAGS`."""
        ...


class Query(Protocol):
    """A parsed filter."""

    def mask(self, columns: Columns, /) -> Mask:
        """Return the rows that match, bool (N,)."""
        ...

    def fields(self) -> frozenset[str]:
        """Return the names of the columns that it reads."""
        ...


@dataclass(frozen=True, slots=True)
class Everything:
    """Matches every row."""

    def mask(self, columns: Columns, /) -> Mask:
        return np.ones(len(columns), bool)

    def fields(self) -> frozenset[str]:
        return frozenset()


@dataclass(frozen=True, slots=True)
class Contains:
    """A field contains a text, without regard to case."""

    name: str
    value: str

    def mask(self, columns: Columns, /) -> Mask:
        wanted = self.value.casefold()
        texts = columns.text(self.name)
        return np.fromiter((wanted in text for text in texts), bool, count=len(texts))

    def fields(self) -> frozenset[str]:
        return frozenset((self.name,))


@dataclass(frozen=True, slots=True)
class Matches:
    """A field has exactly this text as a tag, a word, its bucket or its folder, without regard to case."""

    name: str
    """`tag`, `word`, `bucket` or `folder`."""
    value: str

    def mask(self, columns: Columns, /) -> Mask:
        wanted = re.escape(self.value.strip().casefold())
        column, pattern = {
            "tag": ("caption", rf"(?:\A|[,\0])\s*{wanted}\s*(?:[,\0]|\Z)"),
            "word": ("caption", rf"(?<!\w){wanted}(?!\w)"),
            "bucket": ("bucket", rf"\A{wanted}\Z"),
            "folder": ("id", r"\A[^/]*\Z" if self.value == "." else rf"\A{wanted.rstrip('/')}/"),
        }[self.name]
        texts, found = columns.text(column), re.compile(pattern)
        return np.fromiter((found.search(text) is not None for text in texts), bool, count=len(texts))

    def fields(self) -> frozenset[str]:
        return frozenset((self.name,))


@dataclass(frozen=True, slots=True)
class Compares:
    """A number compares so; an unknown one never does."""

    name: str
    op: str
    value: float

    def mask(self, columns: Columns, /) -> Mask:
        found = columns.number(self.name)
        kept: Mask = _COMPARE[self.op](found, self.value) & ~np.isnan(found)
        return kept

    def fields(self) -> frozenset[str]:
        return frozenset((self.name,))


@dataclass(frozen=True, slots=True)
class Is:
    """A flag is set."""

    name: str

    def mask(self, columns: Columns, /) -> Mask:
        return columns.flag(self.name)

    def fields(self) -> frozenset[str]:
        return frozenset((self.name,))


@dataclass(frozen=True, slots=True)
class Not:
    """Matches what another condition does not."""

    one: Query

    def mask(self, columns: Columns, /) -> Mask:
        return ~self.one.mask(columns)

    def fields(self) -> frozenset[str]:
        return self.one.fields()


@dataclass(frozen=True, slots=True)
class AllOf:
    """Matches what all conditions match."""

    several: tuple[Query, ...]

    def mask(self, columns: Columns, /) -> Mask:
        return functools.reduce(operator.and_, (one.mask(columns) for one in self.several))

    def fields(self) -> frozenset[str]:
        return frozenset[str]().union(*(one.fields() for one in self.several))


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Matches what any condition matches."""

    several: tuple[Query, ...]

    def mask(self, columns: Columns, /) -> Mask:
        return functools.reduce(operator.or_, (one.mask(columns) for one in self.several))

    def fields(self) -> frozenset[str]:
        return frozenset[str]().union(*(one.fields() for one in self.several))
