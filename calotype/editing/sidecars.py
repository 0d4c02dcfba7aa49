"""Caption files beside pictures: which hold a picture's captions, and what they must hold for others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from calotype.errors import EditError
from calotype.manifest.captions import decode_text, split_captions
from calotype.manifest.listing import Listing, stem_of
from calotype.manifest.sidecars import caption_files
from calotype.small_files import read_small_file

__all__ = ["Sidecars", "mirror"]


@dataclass
class Sidecars:
    """The caption files of a folder."""

    folder: Path
    listing: Listing
    many: bool
    """Each line is a caption."""

    @cached_property
    def _there(self) -> set[str]:
        return set(self.listing.captions)

    @cached_property
    def _sharing(self) -> Counter[str]:
        """How many pictures there are of each stem."""
        return Counter(map(stem_of, self.listing.images))

    def of(self, picture: str) -> list[str]:
        """The files that hold a picture's captions, in their order."""
        return caption_files(picture, self._there.__contains__)

    def read(self, picture: str) -> list[str]:
        """A picture's captions.

        Raises:
            EditError: A file is not UTF-8, or can't be read.
        """
        captions: list[str] = []
        for name in self.of(picture):
            captions += self._captions(name, self._data(name))
        return captions

    def _data(self, name: str) -> bytes:
        try:
            return read_small_file(self.folder / name)
        except OSError as error:
            raise EditError(f"{self.folder / name}: the caption file can't be read: {error.strerror}") from error

    def _captions(self, name: str, data: bytes) -> list[str]:
        try:
            return split_captions(decode_text(data), self.many)
        except UnicodeDecodeError as error:
            raise EditError(
                f"{self.folder / name}: not UTF-8 text (byte {error.start}); save the caption file as UTF-8"
            ) from None

    def write(self, picture: str, captions: Sequence[str]) -> dict[str, bytes] | None:
        """What the picture's files must hold to give these captions; None when they can't."""
        names = [self._own(picture, name) for name in self.of(picture)] or [self._new(picture)]
        texts = ["\n".join(captions)] if self.many else list(captions)
        if len(texts) > len(names):
            return None
        texts += [""] * (len(names) - len(texts))
        found = {name: _encoded(text) for name, text in zip(names, texts, strict=True)}
        read = [caption for name, data in found.items() for caption in self._captions(name, data)]
        return found if read == list(captions) else None

    def copy(self, picture: str, captions: Sequence[str]) -> tuple[str, bytes]:
        """The file, and what it holds, that says for other programs what a metadata file says."""
        names = self.of(picture)
        return self._own(picture, names[0]) if names else self._new(picture), _encoded(mirror(captions))

    def says(self, picture: str, captions: Sequence[str]) -> bool:
        """Whether the picture has one file, and that holds just this."""
        names = self.of(picture)
        return len(names) == 1 and self._data(names[0]).rstrip(b"\r\n") == _encoded(mirror(captions)).rstrip(b"\n")

    def _own(self, picture: str, name: str) -> str:
        """The file itself, or one that goes before it where other pictures share it."""
        shared = name.startswith(stem_of(picture) + ".") and not name.startswith(picture + ".")
        return picture + name[len(stem_of(name)) :] if shared and self._sharing[stem_of(picture)] > 1 else name

    def _new(self, picture: str) -> str:
        return (picture if self._sharing[stem_of(picture)] > 1 else stem_of(picture)) + ".txt"


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
