"""File names as data names them: exactly, else the only one that differs in its Unicode form or its case."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

__all__ = ["NamesOnDisk", "folded"]


class NamesOnDisk:
    """Looks names up among those that are there.

    macOS and other programs write `é` as one character or as two, and Windows and macOS do not tell `IMG_1.JPG` from
    `img_1.jpg`. So a name that is not there may be there in another form.

    Args:
        names: As they are on disk; paths relative to one folder are names too. A set is used as it is.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names if isinstance(names, set | frozenset) else frozenset(names)

    @classmethod
    def of_folder(cls, folder: Path) -> NamesOnDisk:
        """The names in a folder; none where there is no such folder, or it can't be read."""
        try:
            return cls(os.listdir(folder))  # noqa: PTH208 - names are enough
        except OSError:
            return cls(())

    def find(self, name: str) -> str | None:
        """The name on disk: this one, else the only one in another Unicode form, else the only one in another case."""
        if name in self._names:
            return name
        alike = self.alike(name)
        form = _composed(name)
        same_form = [other for other in alike if _composed(other) == form]
        candidates = same_form or alike
        return candidates[0] if len(candidates) == 1 else None

    def alike(self, name: str) -> list[str]:
        """All names that differ from this one in Unicode form or case only, sorted."""
        return [other for other in self._by_fold.get(folded(name), ()) if other != name]

    @cached_property
    def _by_fold(self) -> dict[str, list[str]]:
        by_fold: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._names):
            by_fold[folded(name)].append(name)
        return dict(by_fold)


def folded(name: str) -> str:
    """The name in the one form that all its Unicode forms and cases share."""
    return name.lower() if name.isascii() else _composed(_composed(name).lower())


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)
