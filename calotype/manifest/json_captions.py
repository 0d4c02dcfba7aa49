"""Captions in a JSON object that describes one image: captioners', img2dataset's and booru downloaders' keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from calotype.manifest.columns import caption_columns

__all__ = ["captions_in_json"]

_TAGS = ("tags", "tag_string", "tag_list", "keywords")
_TAGS_OF_A_KIND = re.compile(r"(?:tags?(?:_string)?)_(?!meta)[a-z]+")
"""Danbooru's `tag_string_general`, gallery-dl's `tags_character`, …"""


def captions_in_json(value: Mapping[str, Any], given: Sequence[str] | None) -> tuple[list[str], tuple[str, ...]]:
    """The captions of an image, and the keys they come from.

    Args:
        value: What a JSON file beside the image holds.
        given: The keys that `columns.caption` names. None looks for those that captions usually have, then for tags,
            which become one caption.
    """
    names = tuple(name for name in value if value[name] is not None)
    if given is not None:
        keys = tuple(name for name in given if name in value)
        return [text for key in keys for text in _texts(value[key])], keys
    if keys := tuple(key for key in caption_columns(names) if any(True for _ in _texts(value[key]))):
        return [text for key in keys for text in _texts(value[key])], keys
    keys = () if _blank_caption(names, value) else _tag_keys(names)
    tags = [tag for key in keys for tag in _tags(value[key])]
    return ([", ".join(tags)], keys) if tags else ([], ())


def _texts(value: Any) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):
            yield each


def _blank_caption(names: tuple[str, ...], value: Mapping[str, Any]) -> bool:
    """Whether there is a caption that says nothing, which tags do not stand in for."""
    return any(value[key] == "" for key in caption_columns(names))


@lru_cache(1024)
def _tag_keys(names: tuple[str, ...]) -> tuple[str, ...]:
    lower = {name.lower(): name for name in reversed(names)}
    whole = [lower[name] for name in _TAGS if name in lower]
    return tuple(whole[:1] or [name for name in names if _TAGS_OF_A_KIND.fullmatch(name.lower())])


def _tags(value: Any) -> Iterator[str]:
    """The tags of a list, of a mapping from kind to list (e621), or of a text, with commas or (booru) with spaces."""
    if isinstance(value, Mapping):
        for several in value.values():
            yield from _tags(several)
    elif isinstance(value, str):
        spaced = "," not in value and "_" in value
        yield from (tag.strip() for tag in (value.split() if spaced else value.split(",")) if tag.strip())
    else:
        yield from (text.strip() for text in _texts(value) if text.strip())
