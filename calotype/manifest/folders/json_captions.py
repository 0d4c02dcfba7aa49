"""Captions in a JSON object that describes one image: captioners', img2dataset's and booru downloaders' keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from calotype.manifest.captions import decode_text, split_captions
from calotype.manifest.reading import Reading
from calotype.manifest.strict_json import loads
from calotype.manifest.tables.columns import caption_columns

__all__ = ["captions_in_json", "join_captions", "parse_json_object"]

_TAGS = ("tags", "tag_string", "tag_list", "keywords")
_TAGS_OF_A_KIND = re.compile(r"(?:tags?(?:_string)?)_(?!meta)[a-z]+")
"""Danbooru's `tag_string_general`, gallery-dl's `tags_character`, …"""


def captions_in_json(value: Mapping[str, Any], reading: Reading) -> tuple[list[str], tuple[str, ...]]:
    """The captions of an image, and the keys they come from.

    They are the keys that `columns.caption` names, else those that captions usually have, else tags, which become one
    caption. None in `columns.caption` says that no key is meant.

    Args:
        value: What a JSON file beside the image holds.
        reading: The options.
    """
    names = tuple(name for name in value if value[name] is not None)
    given = reading.columns.get("caption", ())
    if given is None:
        return [], ()
    if given:
        keys = tuple(name for name in given if name in value)
        return [text for key in keys for text in _texts(value[key]) if text.strip()], keys
    if keys := tuple(key for key in caption_columns(names) if any(True for _ in _texts(value[key]))):
        return [text for key in keys for text in _texts(value[key]) if text.strip()], keys
    keys = () if _says_none(value) else _tag_keys(names)
    tags = [tag for key in keys for tag in _tags(value[key])]
    return ([", ".join(tags)], keys) if tags else ([], ())


def _texts(value: Any) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):
            yield each


def _says_none(value: Mapping[str, Any]) -> bool:
    """Whether there is a key of captions that has none, for which tags do not stand in."""
    return any(value[key] in (None, "", []) for key in caption_columns(tuple(value)))


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


def join_captions(texts: list[str], listed: list[str], reading: Reading) -> list[str]:
    """The captions of text files, and those of JSON where no text has any or the text is the first of them."""
    if listed and (not texts or texts == split_captions(listed[0], bool(reading.many_lines))):
        return listed
    return texts


def parse_json_object(data: bytes) -> dict[str, Any]:
    """The object in a JSON file that describes one image.

    Raises:
        ValueError: It is not valid JSON.
        TypeError: It holds something else.
    """
    value = loads(decode_text(data))
    if not isinstance(value, dict):
        raise TypeError("its .json is not an object")
    return value
