"""Caption files beside images: which hold an image's captions, and what they must hold for others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from calotype.core.small_files import read_small_file
from calotype.errors import EditError
from calotype.manifest.file_kinds import stem_of
from calotype.manifest.folders.caption_files import (
    CaptionFiles,
    caption_files_of,
    is_json,
    text_captions,
)
from calotype.manifest.folders.json_captions import captions_in_json, join_captions, parse_json_object
from calotype.manifest.folders.listing import Listing
from calotype.manifest.names_on_disk import folded
from calotype.manifest.reading import Reading

__all__ = ["Sidecars", "mirror"]


@dataclass
class Sidecars:
    """The caption files of a folder."""

    folder: Path
    listing: Listing
    reading: Reading
    """How the manifest reads them."""

    @cached_property
    def _files(self) -> CaptionFiles:
        return caption_files_of(self.listing, self.reading.caption_suffixes)

    @cached_property
    def _sharing(self) -> Counter[str]:
        """How many images there are of each stem."""
        return Counter(map(stem_of, self.listing.images))

    def of(self, picture: str) -> list[str]:
        """The files that hold an image's captions, in their order."""
        return self._files.of(picture)

    def read(self, picture: str) -> list[str]:
        """An image's captions.

        Raises:
            EditError: A file is not UTF-8 or not JSON, or can't be read.
        """
        texts = [caption for name in self._texts_of(picture) for caption in self._captions(name, self._data(name))]
        return join_captions(texts, self._listed(picture), self.reading)

    def _texts_of(self, picture: str) -> list[str]:
        return [name for name in self.of(picture) if not is_json(name)]

    def _listed(self, picture: str) -> list[str]:
        """What the JSON file beside it says."""
        for name in filter(is_json, self.of(picture)):
            try:
                return captions_in_json(parse_json_object(self._data(name)), self.reading)[0]
            except TypeError:
                continue
            except ValueError as error:
                raise EditError(f"{self.folder / name}: the caption can't be read: {error}") from None
        return []

    def _data(self, name: str) -> bytes:
        try:
            return read_small_file(self.folder / name)
        except OSError as error:
            raise EditError(f"{self.folder / name}: the caption file can't be read: {error.strerror}") from error

    def _captions(self, name: str, data: bytes) -> list[str]:
        try:
            return text_captions(data, self.reading)
        except ValueError as error:
            raise EditError(f"{self.folder / name}: {error}") from None

    def write(self, picture: str, captions: Sequence[str]) -> dict[str, bytes] | None:
        """What the image's files must hold to give these captions; None when they can't.

        A JSON file stays as it is: a text file beside it goes before it.

        Raises:
            EditError: There are to be none, and the JSON file has some.
        """
        listed = self._listed(picture)
        if listed and not captions:
            (name, *_) = filter(is_json, self.of(picture))
            raise EditError(f"{self.folder / name}: the caption is in this file, which is not changed; remove it there")
        names = [self._own(picture, name) for name in self._texts_of(picture)] or [self._new(picture)]
        texts = ["\n".join(captions)] if self.reading.many_lines else list(captions)
        if len(texts) > len(names) or not self._suffix:
            return None
        texts += [""] * (len(names) - len(texts))
        found = {name: _encoded(text) for name, text in zip(names, texts, strict=True)}
        read = [caption for name, data in found.items() for caption in self._captions(name, data)]
        return found if join_captions(read, listed, self.reading) == list(captions) else None

    def copy(self, picture: str, captions: Sequence[str]) -> tuple[str, bytes]:
        """The file, and what it holds, that says for other programs what a metadata file says."""
        names = self._texts_of(picture)
        return self._own(picture, names[0]) if names else self._new(picture), _encoded(mirror(captions))

    def says(self, picture: str, captions: Sequence[str]) -> bool:
        """Whether the image has one file, and that holds just this."""
        names = self._texts_of(picture)
        return len(names) == 1 and self._data(names[0]).rstrip(b"\r\n") == _encoded(mirror(captions)).rstrip(b"\n")

    def _own(self, picture: str, name: str) -> str:
        """The file itself, or one that goes before it where other images share it."""
        base, full = folded(stem_of(name)), folded(picture)
        shared = base == folded(stem_of(picture)) and base != full
        return picture + name[len(stem_of(name)) :] if shared and self._sharing[stem_of(picture)] > 1 else name

    def _new(self, picture: str) -> str:
        return (picture if self._sharing[stem_of(picture)] > 1 else stem_of(picture)) + (self._suffix or ".txt")

    @property
    def _suffix(self) -> str | None:
        """Of new caption files; None where no text file would be read."""
        return next((suffix for suffix in self.reading.caption_suffixes if not is_json(suffix)), None)


def mirror(captions: Sequence[str]) -> str:
    """Captions as other trainers read them from a file: a line each, which is all of it where there is but one."""
    if len(captions) == 1:
        return captions[0]
    return "\n".join(" ".join(caption.split()) for caption in captions)


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8") + (b"\n" if text else b"")
    except UnicodeEncodeError as error:
        raise EditError(f"{text!a}: half a character at {error.start}, which is no text") from None
