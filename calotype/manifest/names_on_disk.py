"""Finds files whose names differ from those in the data in Unicode form or case only."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property

__all__ = ["NamesOnDisk", "folded"]


class NamesOnDisk:
    """Looks up names among those on disk.

    `é` may be one character or two (macOS), and `IMG_1.JPG` is the same file as `img_1.jpg` on Windows and macOS, so
    the name of a file may differ from the name in the data.

    Args:
        names: Names on disk, or paths relative to one folder. A set is not copied.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names if isinstance(names, set | frozenset) else frozenset(names)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def find(self, name: str) -> str | None:
        """Return the name itself, else the only one in another Unicode form, else the only one in another case."""
        if name in self._names:
            return name
        alike = self.alike(name)
        form = _composed(name)
        same_form = [other for other in alike if _composed(other) == form]
        candidates = same_form or alike
        return candidates[0] if len(candidates) == 1 else None

    def alike(self, name: str) -> list[str]:
        """Return all other names that differ in Unicode form or case only, sorted."""
        return [other for other in self._by_fold.get(folded(name), ()) if other != name]

    @cached_property
    def _by_fold(self) -> dict[str, list[str]]:
        by_fold: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._names):
            by_fold[folded(name)].append(name)
        return dict(by_fold)


def folded(name: str) -> str:
    """Fold Unicode form and case: equal for all forms of one name."""
    return name.lower() if name.isascii() else _composed(_composed(name).lower())


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)
