"""`Derived`: how the default of an option that is no constant is found, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["Derived", "derivation"]


@dataclass(frozen=True, slots=True)
class Derived:
    """Metadata of an option: what its default is, where other values decide it."""

    words: str


def derivation(field: FieldInfo) -> str | None:
    """Return how an option's default is found; None where it is the constant that the field has."""
    return next((one.words for one in field.metadata if isinstance(one, Derived)), None)
