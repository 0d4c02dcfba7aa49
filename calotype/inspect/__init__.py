"""Looks at a dataset through the very pipeline that trains: `summarise`, `check` and `preview`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calotype.inspect.summary import Summary, summarise

__all__ = ["Summary", "summarise"]

_HOMES = {"Summary": "summary", "summarise": "summary"}


def __getattr__(name: str) -> Any:
    """Imports when first used: a report that is remembered is shown without loading torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
