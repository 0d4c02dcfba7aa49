"""Pillow's warnings kept off the user's terminal, from any number of threads at once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from calotype.images.locks import ForkSafeLock

__all__ = ["quiet_pillow"]

_lock = ForkSafeLock()
_inside = 0
_filter: Any = None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignores the warnings that Pillow's own modules raise, while any thread is inside.

    `warnings.catch_warnings` swaps the process-wide list of filters, so two threads in it at once can leave the wrong
    list behind. This puts one filter in front of the list when the first thread comes in and takes that very one out
    when the last leaves. What Pillow warns of (odd metadata) costs no pixel; what does cost pixels it raises.
    """
    global _inside, _filter
    with _lock:
        _inside += 1
        if _filter is None or _filter not in warnings.filters:
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _filter = warnings.filters[0]
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                if _filter in warnings.filters:
                    warnings.filters.remove(_filter)  # type: ignore[attr-defined]  # a list, which typeshed hides
                _filter = None
