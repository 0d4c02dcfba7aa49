"""Pillow's warnings and log lines kept off the user's terminal, from any number of threads at once."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from calotype.images.locks import ForkSafeLock

__all__ = ["quiet_pillow"]

_lock = ForkSafeLock()
_inside = 0
_filter: Any = None

_PLUGINS = ("Avif", "Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP")
_LOGGERS = ("PIL.Image", "PIL.ImageFile", *(f"PIL.{name}ImagePlugin" for name in _PLUGINS))
"""A filter of a logger does not hold for those below it."""


class _Mine(threading.local):
    depth = 0


_mine = _Mine()


def _not_ours(record: logging.LogRecord) -> bool:
    """False for what Pillow logs while this very thread is inside; what a user does with Pillow is the user's."""
    return not _mine.depth


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_not_ours)  # noqa: TID251 - Pillow's, and nothing is logged here


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignores the warnings that Pillow's own modules raise, while any thread is inside, and what they log in this one.

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
    _mine.depth += 1
    try:
        yield
    finally:
        _mine.depth -= 1
        with _lock:
            _inside -= 1
            if not _inside:
                if _filter in warnings.filters:
                    warnings.filters.remove(_filter)  # type: ignore[attr-defined]  # a list, which typeshed hides
                _filter = None
