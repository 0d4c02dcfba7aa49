"""Adds, removes and replaces a tag or a word in a caption."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["SEPARATOR", "TagChange", "tags_of"]

SEPARATOR = ","
"""Between the tags of a caption."""


def tags_of(caption: str) -> list[str]:
    """Return the tags of a caption: its parts between commas."""
    return [tag for part in caption.split(SEPARATOR) if (tag := part.strip())]


@dataclass(frozen=True, kw_only=True, slots=True)
class TagChange:
    """A change that is made to the captions of many images. Tags and words are compared without regard to case."""

    action: Literal["add", "remove", "replace"]
    unit: Literal["tag", "word"]
    text: str
    """The tag or word."""
    to: str = ""
    """What replaces it."""
    at: Literal["start", "end"] = "end"
    """Where it is added."""

    @property
    def label(self) -> str:
        """The change, for display."""
        into = f" with “{self.to}”" if self.action == "replace" else ""
        return f"{self.action} the {self.unit} “{self.text}”{into}"

    def captions(self, captions: Sequence[str]) -> tuple[str, ...]:
        """Return the captions of an image after the change. Captions without the tag or word are unchanged."""
        return tuple(map(self._changed, captions or ("",)))

    def _changed(self, caption: str) -> str:
        if self.action == "add":
            return self._added(caption)
        return self._tags_changed(caption) if self.unit == "tag" else self._words_changed(caption)

    def _added(self, caption: str) -> str:
        if not caption.strip():
            return self.text
        if self.unit == "tag" and _same(self.text) in map(_same, tags_of(caption)):
            return caption
        if self.unit == "word" and _word(self.text).search(caption):
            return caption
        between = f"{SEPARATOR} " if self.unit == "tag" else " "
        return f"{self.text}{between}{caption}" if self.at == "start" else f"{caption.rstrip()}{between}{self.text}"

    def _tags_changed(self, caption: str) -> str:
        parts = caption.split(SEPARATOR)
        if not any(_same(part) == _same(self.text) for part in parts):
            return caption
        there = {_same(part) for part in parts} - {_same(self.text)}
        kept: list[str] = []
        for part in parts:
            if _same(part) != _same(self.text):
                kept.append(part)
            elif self.action == "replace" and _same(self.to) not in there:
                kept.append(part.replace(part.strip(), self.to))
                there.add(_same(self.to))  # once, even if the old tag was there twice
        return SEPARATOR.join(kept).strip()

    def _words_changed(self, caption: str) -> str:
        word = _word(self.text)
        if self.action == "replace":
            return word.sub(lambda found: self.to, caption)
        if not word.search(caption):
            return caption
        without = re.sub(rf"\s?{word.pattern}", "", caption, flags=word.flags)
        return re.sub(r"^\s*,\s*", "", without).strip()


def _same(tag: str) -> str:
    return tag.strip().casefold()


def _word(text: str) -> re.Pattern[str]:
    """Return a pattern of the word, not as part of a longer one."""
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)", re.IGNORECASE)
