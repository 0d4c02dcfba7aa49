"""Groups the members of an archive into samples, by their names."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from calotype.errors import ConfigError
from calotype.manifest.folders.companions import find_companions
from calotype.manifest.reading import MemberKey

__all__ = ["Matched", "ending", "match_members", "parse_member_key"]

_RULES: Final[tuple[MemberKey, ...]] = ("auto", "first_dot", "last_dot")
_SUFFIXES: Final = ".jpg .jpeg .jpe .jfif .webp .avif .heic .heif .png .tiff .tif .bmp .gif".split()  # noqa: SIM905
"""Image suffixes by priority: of two images with one key the first is the sample, since masks and maps are lossless."""
_LAST_WORD: Final = re.compile(r"[-_ ][A-Za-z_]+\.\w+$")


@dataclass(slots=True)
class Matched:
    """Samples and other members, as `match_members` found them."""

    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Image of a sample → its texts, in the archive's order."""
    companions: list[str] = field(default_factory=list)
    """Images that belong to a sample and are not samples themselves."""
    others: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Other image that is not a sample → (kind in the ledger, reason)."""
    doubts: list[str] = field(default_factory=list)
    """Sentences about images that are read as samples although they have names of companions."""
    unused: list[str] = field(default_factory=list)
    """Texts of a sample that are not its captions."""
    orphans: list[str] = field(default_factory=list)
    """Texts without an image."""
    unclear: dict[str, list[str]] = field(default_factory=dict)
    """Key with several images, none of which is clearly the sample → endings of its members."""


@dataclass(slots=True)
class _Group:
    images: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def parse_member_key(given: object) -> MemberKey:
    """Parse the option `member_key`.

    Raises:
        ConfigError: It is not one of the three rules.
    """
    for rule in _RULES:
        if given == rule:
            return rule
    raise ConfigError(f"member_key: found {given!r}; expected {', '.join(map(repr, _RULES))}")


def match_members(images: Sequence[str], texts: Sequence[str], rule: MemberKey) -> Matched:
    """Match the images and texts of each sample.

    Args:
        images: Names of image members, with any image suffix or (in LMDB) none.
        texts: Names of text members.
        rule: The key that the members of a sample share: their names up to the `first_dot` of the base name, as in
            WebDataset, or up to the `last_dot`. `auto`: the first dot, or the last dot if that matches an image with
            its text.
    """
    found = Matched()
    groups: dict[str, _Group] = defaultdict(_Group)
    of_images = set(images)
    cut = _last_dot if rule == "last_dot" else _first_dot
    for name in images:
        groups[cut(name)[0]].images.append(name)
    for name in texts:
        # `a.jpg.txt` belongs to `a.jpg` under every rule.
        stem, _ = _last_dot(name)
        groups[cut(stem if stem in of_images else name)[0]].texts.append(name)
    for key, group in groups.items():
        if not group.images:
            found.orphans += group.texts
        elif len(group.images) == 1 and all(cut(text)[1].count(".") == 1 for text in group.texts):
            found.texts[group.images[0]] = tuple(group.texts)
        else:
            _match_group(key, group, rule, found)
    _leave_out_companions(found)
    return found


def ending(name: str) -> str:
    """Return the ending that names of one kind share: `.mask.png`, `-masklabel.png`."""
    match = _LAST_WORD.search(name)
    return match[0] if match else _first_dot(name)[1]


def _match_group(key: str, group: _Group, rule: MemberKey, found: Matched) -> None:
    """Match a key with several images, or with names that have further parts after the key."""
    plain = sorted((name for name in group.images if name.lower() in _plain_names(key)), key=_rank)
    own = {name: tuple(_own(name, group.texts)) for name in group.images}
    used: set[str] = set()
    if plain:
        main = plain[0]
        others = [name for name in group.images if name not in plain]
        captioned = [name for name in others if own[name]] if rule == "auto" else []
        samples = {name: own[name] for name in [main, *captioned]}
        found.companions += [name for name in group.images if name not in samples]
    elif rule == "auto" and any(own.values()):
        samples = own
    elif len(group.images) == 1 and len({_last_dot(text)[1] for text in group.texts}) == len(group.texts):
        samples = {group.images[0]: tuple(group.texts)}
    else:
        found.unclear[key] = [name[len(key) :] for name in (*group.images, *group.texts)]
        return
    found.texts |= samples
    used.update(*samples.values())
    found.unused += [name for name in group.texts if name not in used]


def _plain_names(key: str) -> set[str]:
    return {f"{key}{suffix}".lower() for suffix in ("", *_SUFFIXES)}


def _own(image: str, texts: Sequence[str]) -> Iterator[str]:
    """Return the texts that have the image's name, with or without its suffix."""
    names = (image, _last_dot(image)[0])
    return (text for text in texts if _last_dot(text)[0] in names)


def _leave_out_companions(found: Matched) -> None:
    """Leave out images that are not samples, by the same rules as in folders."""
    captions = [text for texts in found.texts.values() for text in texts]
    named = find_companions(list(found.texts), captions, [])
    found.doubts = named.doubts
    for name, (kind, reason) in named.images.items():
        del found.texts[name]
        if kind == "companion":
            found.companions.append(name)
        else:
            found.others[name] = kind, reason


def _rank(name: str) -> int:
    suffix = _last_dot(name)[1].lower()
    return _SUFFIXES.index(suffix) if suffix in _SUFFIXES else len(_SUFFIXES)


def _first_dot(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", dot + suffix


def _last_dot(name: str) -> tuple[str, str]:
    return posixpath.splitext(name)
