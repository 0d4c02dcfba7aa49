"""What filters are made of: conditions, asked of the columns of all rows at once."""

from __future__ import annotations

import functools
import operator
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
    "Not",
    "Query",
]

Mask = npt.NDArray[np.bool_]

TEXTS: Final = ("caption", "id")
"""Fields that are searched with `:`."""
NUMBERS: Final = ("aspect", "captions", "height", "pixels", "tokens", "width", "words")
"""Fields that are compared; `tokens.KEY` is one tokenizer's count."""
FLAGS: Final = ("duplicate", "missing", "rejected", "unreadable")
"""What comes after `is:`."""

_COMPARE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}


class Columns(Protocol):
    """What a query is asked of: columns of one length."""

    def __len__(self) -> int: ...

    def text(self, name: str) -> Sequence[str]:
        """Casefolded; several texts of one row have a NUL between them. `name` is one of `TEXTS`."""
        ...

    def number(self, name: str) -> npt.NDArray[np.float64]:
        """NaN where it is not known. `name` is one of `NUMBERS`, or `tokens.KEY`."""
        ...

    def flag(self, name: str) -> Mask:
        """`name` is one of `FLAGS`."""
        ...


class Query(Protocol):
    """A filter, ready to be asked."""

    def mask(self, columns: Columns, /) -> Mask:
        """The rows that it keeps, bool (N,)."""
        ...

    def fields(self) -> frozenset[str]:
        """What it looks at, by the names of `Columns`."""
        ...


@dataclass(frozen=True, slots=True)
class Everything:
    """Keeps every row."""

    def mask(self, columns: Columns, /) -> Mask:
        return np.ones(len(columns), bool)

    def fields(self) -> frozenset[str]:
        return frozenset()


@dataclass(frozen=True, slots=True)
class Contains:
    """A text is in a field, in any case."""

    name: str
    value: str

    def mask(self, columns: Columns, /) -> Mask:
        wanted = self.value.casefold()
        texts = columns.text(self.name)
        return np.fromiter((wanted in text for text in texts), bool, count=len(texts))

    def fields(self) -> frozenset[str]:
        return frozenset((self.name,))


@dataclass(frozen=True, slots=True)
class Compares:
    """A number is so; one that is not known never is."""

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
    """What another one does not keep."""

    one: Query

    def mask(self, columns: Columns, /) -> Mask:
        return ~self.one.mask(columns)

    def fields(self) -> frozenset[str]:
        return self.one.fields()


@dataclass(frozen=True, slots=True)
class AllOf:
    """What all of them keep."""

    several: tuple[Query, ...]

    def mask(self, columns: Columns, /) -> Mask:
        return functools.reduce(operator.and_, (one.mask(columns) for one in self.several))

    def fields(self) -> frozenset[str]:
        return frozenset[str]().union(*(one.fields() for one in self.several))


@dataclass(frozen=True, slots=True)
class AnyOf:
    """What any of them keeps."""

    several: tuple[Query, ...]

    def mask(self, columns: Columns, /) -> Mask:
        return functools.reduce(operator.or_, (one.mask(columns) for one in self.several))

    def fields(self) -> frozenset[str]:
        return frozenset[str]().union(*(one.fields() for one in self.several))
