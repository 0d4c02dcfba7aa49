"""Caption files beside images: reads an image's captions, and computes the contents for new ones."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, takewhile
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

__all__ = ["Sidecars", "as_lines"]


@dataclass
class Sidecars:
    """The caption files of a folder."""

    folder: Path
    listing: Listing
    reading: Reading
    """The options with which the manifest reads them."""

    @cached_property
    def _path(self) -> str:
        """The folder, as text: a `Path` for each of 100,000 files costs a second."""
        return str(self.folder)

    @cached_property
    def _files(self) -> CaptionFiles:
        return caption_files_of(self.listing, self.reading.caption_suffixes)

    def _is_shared(self, stem: str) -> bool:
        """Whether several images have this name without its suffix."""
        images = self.listing.images  # sorted
        alike = takewhile(
            lambda name: name.startswith(f"{stem}."), islice(images, bisect_left(images, f"{stem}."), None)
        )
        return len(list(islice((name for name in alike if stem_of(name) == stem), 2))) > 1

    def add(self, name: str) -> bool:
        """Add a file that was created. False: the folder must be listed again."""
        return self._files.add(name)

    def of(self, image: str) -> list[str]:
        """Return the caption files of an image, in their order."""
        return self._files.of(image)

    def is_one_text(self, image: str) -> bool:
        """Whether the captions of an image are in one text file."""
        names = self.of(image)
        return len(names) == 1 and not is_json(names[0])

    def read(self, image: str) -> list[str]:
        """Read an image's captions.

        Raises:
            EditError: A file is not UTF-8 or not JSON, or can't be read.
        """
        if self.is_one_text(image):
            (name,) = self.of(image)
            return self._captions(name, self._data(name))
        texts = [caption for name in self._texts_of(image) for caption in self._captions(name, self._data(name))]
        return join_captions(texts, self._in_json(image), self.reading)

    def _texts_of(self, image: str) -> list[str]:
        return [name for name in self.of(image) if not is_json(name)]

    def _in_json(self, image: str) -> list[str]:
        """Read the captions in the JSON file beside an image."""
        for name in filter(is_json, self.of(image)):
            try:
                return captions_in_json(parse_json_object(self._data(name)), self.reading)[0]
            except TypeError:
                continue
            except ValueError as error:
                raise EditError(f"{self.folder / name}: the caption can't be read: {error}") from None
        return []

    def _data(self, name: str) -> bytes:
        try:
            return read_small_file(f"{self._path}/{name}")
        except OSError as error:
            raise EditError(f"{self.folder / name}: the caption file can't be read: {error.strerror}") from error

    def _captions(self, name: str, data: bytes) -> list[str]:
        try:
            return text_captions(data, self.reading)
        except ValueError as error:
            raise EditError(f"{self.folder / name}: {error}") from None

    def write(self, image: str, captions: Sequence[str]) -> dict[str, bytes] | None:
        """Return the contents of an image's caption files that have these captions; None: they can't.

        A JSON file is not changed: a text file beside it has priority.

        Raises:
            EditError: There are no captions to write, and the JSON file has some.
        """
        in_json = self._in_json(image)
        if in_json and not captions:
            (name, *_) = filter(is_json, self.of(image))
            raise EditError(f"{self.folder / name}: the caption is in this file, which is not changed; remove it there")
        names = [self._own(image, name) for name in self._texts_of(image)] or [self._new(image)]
        texts = ["\n".join(captions)] if self.reading.many_lines else list(captions)
        if len(texts) > len(names) or not self._suffix:
            return None
        texts += [""] * (len(names) - len(texts))
        found = {name: _encoded(text) for name, text in zip(names, texts, strict=True)}
        read = [caption for name, data in found.items() for caption in self._captions(name, data)]
        return found if join_captions(read, in_json, self.reading) == list(captions) else None

    def copy(self, image: str, captions: Sequence[str]) -> tuple[str, bytes]:
        """Return the name and contents of a file that has the captions of a metadata file, for other programs."""
        names = self._texts_of(image)
        return self._own(image, names[0]) if names else self._new(image), _encoded(as_lines(captions))

    def matches(self, image: str, captions: Sequence[str]) -> bool:
        """Whether the image has one text file, with exactly these captions."""
        names = self._texts_of(image)
        return len(names) == 1 and self._data(names[0]).rstrip(b"\r\n") == _encoded(as_lines(captions)).rstrip(b"\n")

    def _own(self, image: str, name: str) -> str:
        """Return the file itself; if other images share it, the name of one with priority for this image."""
        base, full = folded(stem_of(name)), folded(image)
        shared = base == folded(stem_of(image)) and base != full
        return image + name[len(stem_of(name)) :] if shared and self._is_shared(stem_of(image)) else name

    def _new(self, image: str) -> str:
        return (image if self._is_shared(stem_of(image)) else stem_of(image)) + (self._suffix or ".txt")

    @property
    def _suffix(self) -> str | None:
        """Suffix of new caption files; None: no text file would be read."""
        return next((suffix for suffix in self.reading.caption_suffixes if not is_json(suffix)), None)


def as_lines(captions: Sequence[str]) -> str:
    """Format captions as other trainers read them: one a line; a single caption as it is."""
    if len(captions) == 1:
        return captions[0]
    return "\n".join(" ".join(caption.split()) for caption in captions)


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8") + (b"\n" if text else b"")
    except UnicodeEncodeError as error:
        raise EditError(f"{text!a}: half a character at {error.start}, which is no text") from None
