"""Which caption files belong to which image: the one rule that reading, checking and editing share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property

from calotype.errors import ConfigError
from calotype.manifest.file_kinds import CAPTION_SUFFIXES, DATA_SUFFIXES, IMAGE_SUFFIXES
from calotype.manifest.folders.listing import stem_of
from calotype.manifest.names_on_disk import NamesOnDisk

__all__ = ["CaptionFiles", "parse_caption_suffix"]


class CaptionFiles:
    """The files beside images that hold their captions.

    Of each suffix `a.jpg.txt` goes before `a.txt`. Suffixes are matched without case. A file whose name differs from
    that of an image in its Unicode form or case belongs to it where that is unique.

    Args:
        images: Paths relative to one folder.
        files: Other files there; what has none of the suffixes is passed over.
        suffixes: Of caption files, in lower case, in the order in which their captions come.
    """

    def __init__(
        self, images: Collection[str], files: Iterable[str], suffixes: Sequence[str] = CAPTION_SUFFIXES
    ) -> None:
        self._images = images
        self._files: dict[str, dict[str, str]] = {suffix: {} for suffix in suffixes}
        """Suffix → the file's name without it → the file."""
        self._spare: dict[str, str] = {}
        """File → the one that goes before it: `a.TXT` where there is an `a.txt`."""
        self._found: dict[str, list[str]] = {}
        for file in files:
            if (parts := self._split(file)) is not None:
                base, suffix = parts
                known = self._files[suffix].setdefault(base, file)
                if known != file:
                    first = self._files[suffix][base] = file if file.endswith(suffix) else known
                    self._spare[known if first == file else file] = first
        self._match_alike()

    def of(self, image: str) -> list[str]:
        """The caption files of an image, in their order."""
        found = self._found.get(image)
        if found is None:
            stem = stem_of(image)
            both = (files.get(image) or files.get(stem) for files in self._files.values())
            found = self._found[image] = [file for file in both if file is not None]
        return found

    def used(self) -> set[str]:
        """The caption files of all images."""
        return {file for image in self._images for file in self.of(image)}

    def unused(self) -> Iterator[tuple[str, str]]:
        """The caption files of no image, and why each of them is none's."""
        every = {file for files in self._files.values() for file in files.values()} | self._spare.keys()
        for file in sorted(every - self.used()):
            yield file, self._why(file)

    def image_of(self, file: str) -> str | None:
        """The image beside which a file of whatever suffix lies: `a.tags` and `a.jpg.tags` beside `a.jpg`."""
        base = self._bases.find(stem_of(file))
        return self._by_base[base] if base is not None else None

    def _split(self, file: str) -> tuple[str, str] | None:
        """The name without its suffix, and the suffix in lower case."""
        for suffix in self._files:
            base = file[: -len(suffix)]
            if file.endswith(suffix) or file[len(base) :].lower() == suffix:
                return base, suffix
        return None

    @cached_property
    def _by_base(self) -> dict[str, str]:
        """What a caption file may be called, without its suffix → the image."""
        by_stem = {stem_of(image): image for image in self._images}
        return by_stem | {image: image for image in self._images}

    @cached_property
    def _bases(self) -> NamesOnDisk:
        return NamesOnDisk(set(self._by_base))

    def _match_alike(self) -> None:
        """Gives files whose names are no image's to the only image that they differ from in form or case."""
        for files in self._files.values():
            alike: dict[str, list[str]] = {}
            for base in files.keys() - self._by_base.keys():
                if (other := self._bases.find(base)) is not None:
                    alike.setdefault(other, []).append(files[base])
            files.update({base: found[0] for base, found in alike.items() if base not in files and len(found) == 1})

    def _why(self, file: str) -> str:
        if file in self._spare:
            return f"not read: {self._spare[file]} goes before it"
        parts = self._split(file)
        assert parts is not None
        base = self._bases.find(parts[0])
        if base is not None and (own := self.of(self._by_base[base])):
            return f"not read: {own[0]} goes before it"
        if alike := self._bases.alike(parts[0]):
            others = ", ".join(sorted({self._by_base[name] for name in alike})[:3])
            return f"a caption file with no image beside it; more than one is meant in another form or case: {others}"
        return "a caption file with no image beside it"


def parse_caption_suffix(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Checks the option `caption_suffix`: the suffixes of caption files, in lower case.

    Raises:
        ConfigError: A suffix is none, or that of images or data files.
    """
    if given is None:
        return CAPTION_SUFFIXES
    several = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not several or not all(isinstance(each, str) and each.strip(". ") for each in several):
        raise ConfigError(f"caption_suffix: found {given!r}; expected a suffix such as .txt, or a list of them")
    suffixes = tuple(dict.fromkeys(f".{each.strip().lstrip('.').lower()}" for each in several))
    for suffix in suffixes:
        if suffix in IMAGE_SUFFIXES or (suffix in DATA_SUFFIXES and suffix != ".json"):
            raise ConfigError(f"caption_suffix: {suffix} is the suffix of images or data files, not of caption files")
    return suffixes
