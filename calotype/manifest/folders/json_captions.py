"""Captions in a JSON object that describes one image, by the keys of captioners, img2dataset and booru downloaders."""

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
    """Return the captions of an image, and their keys.

    The keys are those in `columns.caption`, else the usual keys of captions, else those of tags, which become one
    caption. If `columns.caption` is None, there are no captions.

    Args:
        value: The object in the JSON file beside the image.
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
    keys = () if _has_empty_caption(value) else _tag_keys(names)
    tags = [tag for key in keys for tag in _tags(value[key])]
    return ([", ".join(tags)], keys) if tags else ([], ())


def _texts(value: Any) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):
            yield each


def _has_empty_caption(value: Mapping[str, Any]) -> bool:
    """Whether a caption key is empty: tags do not replace an empty caption."""
    return any(value[key] in (None, "", []) for key in caption_columns(tuple(value)))


@lru_cache(1024)
def _tag_keys(names: tuple[str, ...]) -> tuple[str, ...]:
    lower = {name.lower(): name for name in reversed(names)}
    whole = [lower[name] for name in _TAGS if name in lower]
    return tuple(whole[:1] or [name for name in names if _TAGS_OF_A_KIND.fullmatch(name.lower())])


def _tags(value: Any) -> Iterator[str]:
    """Yield the tags in a list, in a mapping from kind to list (e621), or in a text with commas or (booru) spaces."""
    if isinstance(value, Mapping):
        for several in value.values():
            yield from _tags(several)
    elif isinstance(value, str):
        spaced = "," not in value and "_" in value
        yield from (tag.strip() for tag in (value.split() if spaced else value.split(",")) if tag.strip())
    else:
        yield from (text.strip() for text in _texts(value) if text.strip())


def join_captions(texts: list[str], in_json: list[str], reading: Reading) -> list[str]:
    """Return the captions from JSON if there is no text or if the text is the first of them; else the text."""
    if in_json and (not texts or texts == split_captions(in_json[0], bool(reading.many_lines))):
        return in_json
    return texts


def parse_json_object(data: bytes) -> dict[str, Any]:
    """Parse the object in a JSON file that describes one image.

    Raises:
        ValueError: It is not valid JSON.
        TypeError: It is not an object.
    """
    value = loads(decode_text(data))
    if not isinstance(value, dict):
        raise TypeError("its .json is not an object")
    return value
