"""Finds the meaning of each column, by the option `columns` and by usual names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from calotype.errors import ConfigError, ManifestError, unknown_key

__all__ = [
    "ColumnMap",
    "Columns",
    "caption_columns",
    "find_columns",
    "is_header",
    "parse_column_map",
    "recognised",
]

ColumnMap = Mapping[str, str | Sequence[str] | None]
"""Meaning → the data file's column(s); None: no column has this meaning."""

_NAMES: dict[str, tuple[str, ...]] = {
    "image": (
        *("image", "file_name", "filename", "file", "image_path", "img_path", "image_file", "img", "path"),
        *("file_path", "filepath", "image_url", "img_url", "url", "uri", "images", "jpg", "png", "webp"),
    ),
    "id": ("id", "image_id"),
    "width": ("width", "image_width", "original_width"),
    "height": ("height", "image_height", "original_height"),
    "weight": ("weight", "repeats", "num_repeats"),
    "rejected": ("rejected",),
}
# Alternatives: the first one present, with its `caption_0`, `caption_1`, …, has the captions.
_CAPTIONS = ("caption", "text", "prompt", "description", "txt", "title", "sentence")
_MEANINGS = ("caption", *_NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The data file's names of the columns that have a meaning."""

    image: str
    captions: tuple[str, ...]
    """Caption columns, in the order of their captions; empty without one."""
    id: str | None = None
    width: str | None = None
    height: str | None = None
    weight: str | None = None
    rejected: str | None = None

    @property
    def used(self) -> frozenset[str]:
        """All columns that have a meaning."""
        single = (self.image, self.id, self.width, self.height, self.weight, self.rejected)
        return frozenset((*self.captions, *(name for name in single if name is not None)))


def parse_column_map(given: ColumnMap | None, option: str = "columns") -> dict[str, tuple[str, ...] | None]:
    """Parse the option `columns`; values become tuples.

    Raises:
        ConfigError: A meaning is unknown, or a value is malformed.
    """
    parsed: dict[str, tuple[str, ...] | None] = {}
    if not isinstance(given, Mapping | None):
        raise ConfigError(f"{option}: found {given!r}; expected a mapping such as image: photo, caption: [long, short]")
    for meaning, names in (given or {}).items():
        if meaning not in _MEANINGS:
            raise unknown_key(option, meaning, _MEANINGS)
        if names is None:
            parsed[meaning] = None
            continue
        several = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Sequence) else ()
        if not several or not all(isinstance(name, str) for name in several):
            raise ConfigError(f"{option}: {meaning!r} must name a column, not {names!r}")
        if len(set(several)) < len(several):
            raise ConfigError(f"{option}: {meaning!r} names a column twice: {', '.join(several)}")
        if meaning != "caption" and len(several) > 1:
            raise ConfigError(f"{option}: {meaning!r} takes one column, not {len(several)}: {', '.join(several)}")
        parsed[meaning] = several
    if "image" in parsed and parsed["image"] is None:
        raise ConfigError(f"{option}: 'image' must name a column, not None")
    both = set(parsed.get("image") or ()) & set(parsed.get("caption") or ())
    if both:
        raise ConfigError(f"{option}: {both.pop()!r} can't be both the image and a caption")
    return parsed


def _captions(lower: Mapping[str, str]) -> tuple[str, ...]:
    """Return the caption columns, from a mapping of lower-case names to names."""
    for word in _CAPTIONS:
        numbered = []
        for name in lower:
            match = re.fullmatch(rf"{word}s?[_-]?(\d{{1,9}})", name)
            if match:
                numbered.append((int(match[1]), name))
        found = [name for name in (word, f"{word}s") if name in lower] + [name for _, name in sorted(numbered)]
        if found:
            return tuple(lower[name] for name in found)
    return ()


@lru_cache(1024)
def caption_columns(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the caption columns by usual names, in the order of their captions."""
    lower: dict[str, str] = {}
    for name in names:
        lower.setdefault(name.strip().lower(), name)
    return _captions(lower)


def is_header(fields: Iterable[str], given: Mapping[str, tuple[str, ...] | None]) -> bool:
    """Whether the first line of a CSV or TSV file names columns."""
    names = {field.strip().lower() for field in fields}
    wanted = {name.lower() for several in given.values() if several for name in several}
    return bool(names & wanted) or bool(names & set(_NAMES["image"]))


def recognised(fields: Iterable[str], given: Mapping[str, tuple[str, ...] | None]) -> int:
    """Count the names that have a meaning."""
    wanted = {name.lower() for several in given.values() if several for name in several}
    known = wanted.union(_CAPTIONS, *_NAMES.values())
    return sum(field.strip().lower() in known for field in fields)


def find_columns(names: Sequence[str], given: Mapping[str, tuple[str, ...] | None], where: str) -> Columns:
    """Find the columns by the option `columns`, then by usual names in any case.

    Args:
        names: Names of all columns.
        given: The parsed option: meaning → columns; None: no column has this meaning.
        where: Name of the data file, for messages.

    Raises:
        ManifestError: There is no image column, a column of the option is not in the file, or names are ambiguous.
    """
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ManifestError(f"{where}: several columns are called {', '.join(map(repr, twice))}; rename all but one")
    lower: dict[str, str] = {}
    for name in names:
        lower.setdefault(name.strip().lower(), name)
    single: dict[str, str | None] = {}
    for meaning, candidates in _NAMES.items():
        single[meaning] = next((lower[name] for name in candidates if name in lower), None)
    captions = _captions(lower)
    for meaning, several in given.items():
        found = tuple(_column(name, names, meaning, where) for name in several or ())
        if meaning == "caption":
            captions = found
        else:
            single[meaning] = found[0] if found else None
    for name in {*captions, *filter(None, single.values())}.difference(*(several or () for several in given.values())):
        alike = [other for other in names if other.strip().lower() == name.strip().lower()]
        if len(alike) > 1:
            raise ManifestError(
                f"{where}: columns whose names differ in case only: {', '.join(map(repr, alike))}; say which is meant "
                "with columns={'image': …, 'caption': …}"
            )
    image = single.pop("image")
    if image is None:
        raise ManifestError(
            f"{where}: no image column found among {_listed(names)}; expected one of "
            f"{', '.join(_NAMES['image'][:8])}, …; name yours with columns={{'image': …, 'caption': …}}"
        )
    # A column has one meaning: one that the option names is not considered for another.
    taken = {image, *captions}
    return Columns(
        image=image,
        captions=tuple(name for name in captions if name != image),
        **{meaning: (None if name in taken and meaning not in given else name) for meaning, name in single.items()},
    )


def _column(name: str, names: Sequence[str], meaning: str, where: str) -> str:
    """Return the column that the option names: the exact name, else the only one in another case."""
    if name in names:
        return name
    alike = [other for other in names if other.strip().lower() == name.strip().lower()]
    if len(alike) == 1:
        return alike[0]
    close = alike or difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise ManifestError(f"{where}: no column {name!r} (columns[{meaning!r}]){hint} (it has {_listed(names)})")


def _listed(names: Sequence[str]) -> str:
    return "the columns " + ", ".join(repr(name) for name in names) if names else "no columns at all"
