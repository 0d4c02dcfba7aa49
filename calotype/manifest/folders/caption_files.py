"""Caption files beside images: matches them to images and reads them. Shared by reading, checking and editing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from calotype.core.small_files import read_small_file
from calotype.errors import ConfigError
from calotype.manifest.captions import decode_text, split_captions
from calotype.manifest.file_kinds import CAPTION_SUFFIXES, DATA_SUFFIXES, IMAGE_SUFFIXES, stem_of
from calotype.manifest.folders.json_captions import captions_in_json, join_captions, parse_json_object
from calotype.manifest.folders.listing import Listing
from calotype.manifest.names_on_disk import NamesOnDisk
from calotype.manifest.reading import Reading
from calotype.manifest.unused_captions import add_unused_captions

__all__ = [
    "CaptionFiles",
    "caption_files_of",
    "has_several_lines",
    "is_json",
    "note_several_lines",
    "parse_caption_suffix",
    "read_caption_files",
    "read_text_captions",
    "text_captions",
]


def parse_caption_suffix(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Parse the option `caption_suffix`: the suffixes of caption files, in lower case.

    Raises:
        ConfigError: A suffix is malformed, or is one of images or data files.
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


class CaptionFiles:
    """Matches caption files to images.

    Of each suffix `a.jpg.txt` has priority over `a.txt`. Suffixes are matched case-insensitively. A file whose name
    differs from an image's in Unicode form or case only is matched if no other file is.

    Args:
        images: Paths relative to one folder.
        files: Other files there; those with none of the suffixes are ignored.
        suffixes: Suffixes of caption files, in lower case, in the order in which their captions come.
    """

    def __init__(
        self, images: Collection[str], files: Iterable[str], suffixes: Sequence[str] = CAPTION_SUFFIXES
    ) -> None:
        self._images = images
        self._files: dict[str, dict[str, str]] = {suffix: {} for suffix in suffixes}
        """Suffix → file name without it → file."""
        self._shadowed: dict[str, str] = {}
        """File → the file with priority over it: `a.TXT` if there is an `a.txt`."""
        self._found: dict[str, list[str]] = {}
        for file in files:
            if (parts := self._split(file)) is not None:
                base, suffix = parts
                known = self._files[suffix].setdefault(base, file)
                if known != file:
                    first = self._files[suffix][base] = file if file.endswith(suffix) else known
                    self._shadowed[known if first == file else file] = first
        self._match_alike()

    def of(self, image: str) -> list[str]:
        """Return the caption files of an image, in their order."""
        found = self._found.get(image)
        if found is None:
            stem = stem_of(image)
            found = self._found[image] = []
            for files in self._files.values():
                if (file := files.get(image) or files.get(stem)) is not None:
                    found.append(file)
        return found

    def add(self, file: str) -> bool:
        """Add a file that was created beside an image. False: all files must be matched again."""
        parts = self._split(file)
        if parts is None or parts[0] not in self._by_base or parts[0] in self._files[parts[1]]:
            return False
        self._files[parts[1]][parts[0]] = file
        self._found.clear()
        return True

    def used(self) -> set[str]:
        """Return the caption files of all images."""
        return {file for image in self._images for file in self.of(image)}

    def unused(self) -> Iterator[tuple[str, str]]:
        """Yield the caption files that belong to no image, with the reason."""
        every = {file for files in self._files.values() for file in files.values()} | self._shadowed.keys()
        for file in sorted(every - self.used()):
            yield file, self._why(file)

    def image_of(self, file: str) -> str | None:
        """Return the image with the name of a file of any suffix: `a.jpg` for `a.tags` and `a.jpg.tags`."""
        base = self._bases.find(stem_of(file))
        return self._by_base[base] if base is not None else None

    def _split(self, file: str) -> tuple[str, str] | None:
        """Split a name into the part before the suffix and the suffix in lower case."""
        for suffix in self._files:
            base = file[: -len(suffix)]
            if file.endswith(suffix) or file[len(base) :].lower() == suffix:
                return base, suffix
        return None

    @cached_property
    def _by_base(self) -> dict[str, str]:
        """Name of a caption file without its suffix → image."""
        by_stem = {stem_of(image): image for image in self._images}
        return by_stem | {image: image for image in self._images}

    @cached_property
    def _bases(self) -> NamesOnDisk:
        return NamesOnDisk(set(self._by_base))

    def _match_alike(self) -> None:
        """Match the other files to the one image from which their names differ in Unicode form or case only."""
        for files in self._files.values():
            alike: dict[str, list[str]] = {}
            for base in files.keys() - self._by_base.keys():
                if (other := self._bases.find(base)) is not None:
                    alike.setdefault(other, []).append(files[base])
            files.update({base: found[0] for base, found in alike.items() if base not in files and len(found) == 1})

    def _why(self, file: str) -> str:
        if file in self._shadowed:
            return f"not read: {self._shadowed[file]} has priority"
        parts = self._split(file)
        assert parts is not None
        base = self._bases.find(parts[0])
        if base is not None and (own := self.of(self._by_base[base])):
            return f"not read: {own[0]} has priority"
        if alike := self._bases.alike(parts[0]):
            others = ", ".join(sorted({self._by_base[name] for name in alike})[:3])
            return f"a caption file with no image beside it; several differ in form or case only: {others}"
        return "a caption file with no image beside it"


def caption_files_of(listing: Listing, suffixes: Sequence[str]) -> CaptionFiles:
    """Match a listing's caption files, and its `.json` files if they may hold captions, to its images."""
    json_files = [name for name in listing.data if is_json(name)] if ".json" in suffixes else []
    return CaptionFiles(listing.images, [*listing.captions, *json_files], suffixes)


def is_json(name: str) -> bool:
    """Whether a caption file is JSON, and not text."""
    return name[-5:].lower() == ".json"


def read_caption_files(
    folder: Path,
    files: CaptionFiles,
    images: Sequence[str],
    kohya: dict[str, tuple[float, str]],
    reading: Reading,
) -> list[list[str]]:
    """Read the captions of images from the files beside them.

    Args:
        folder: Folder of the images.
        files: The caption files of each image.
        images: The images, relative to the folder.
        kohya: The result of `kohya_folders`: an image without a caption file gets its folder's class name as caption.
        reading: The options; unreadable files are reported to it.

    Returns:
        The captions of each image.
    """
    # The files beside each image: text first, then JSON.
    captions: list[list[str]] = []
    from_folder_name = 0
    several_lines: list[str] = []
    for image in images:
        texts: list[str] = []
        in_json: list[str] = []
        own = files.of(image)
        for file in own:
            if is_json(file):
                in_json = _read_json(folder / file, texts, reading)
                continue
            try:
                found = read_text_captions(f"{folder}/{file}", reading)
            except ValueError as error:
                reading.bad(f"{folder}/{file}", str(error))
                continue
            if has_several_lines(found):
                several_lines.append(file)
            texts += found
        texts = join_captions(texts, in_json, reading)
        # Without any file, the class name of a repeat folder.
        repeats, class_name = kohya.get(image.rpartition("/")[0], (None, ""))
        if repeats is not None and not own:  # an empty file is an empty caption, as in kohya's scripts
            texts = [class_name]
            from_folder_name += 1
        captions.append(texts)
    if from_folder_name:
        reading.note(f"{from_folder_name} image(s) without a caption file are captioned by kohya's folder name")
    note_several_lines(several_lines, reading)
    return captions


def read_text_captions(file: str | Path, reading: Reading) -> list[str]:
    """Read the captions in a text file.

    Raises:
        ValueError: It can't be read, or is not text; the message is the reason.
    """
    try:
        return text_captions(read_small_file(file), reading)
    except OSError as error:
        raise ValueError(f"the caption file can't be read: {error.strerror}") from error


def text_captions(data: bytes, reading: Reading) -> list[str]:
    """Return the captions in the contents of a text file.

    Raises:
        ValueError: The contents are not text; the message is the reason.
    """
    try:
        return split_captions(decode_text(data), bool(reading.many_lines))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start}); save the caption file as UTF-8") from None


def has_several_lines(texts: list[str]) -> bool:
    """Whether the text of a caption file has several lines, each of which may be meant as a caption."""
    return any("\n" in text.strip() for text in texts)


def note_several_lines(files: list[str], reading: Reading) -> None:
    """Report caption files of several lines, unless `caption_lines` is set."""
    if files and reading.many_lines is None:
        count = "1 caption file has" if len(files) == 1 else f"{len(files):,} caption files have"
        reading.note(
            f"{count} several lines ({files[0]}), and each is one caption: caption_lines=many makes each line a "
            "caption, caption_lines=one confirms that this is meant"
        )


def _read_json(file: Path, texts: list[str], reading: Reading) -> list[str]:
    try:
        value = parse_json_object(read_small_file(file))
    except (TypeError, OSError) as error:
        add_unused_captions(reading, str(file), f"not read: {error.strerror if isinstance(error, OSError) else error}")
        return []
    except ValueError as error:
        if texts:
            add_unused_captions(reading, str(file), f"not read: {error}; the text file beside it is")
        else:
            reading.bad(str(file), f"the caption can't be read: {error}")
        return []
    captions, _ = captions_in_json(value, reading)
    if not captions and not texts and reading.columns.get("caption", ()) is not None:
        keys = ", ".join(map(repr, list(value)[:8])) + (", …" if len(value) > 8 else "")
        add_unused_captions(
            reading, str(file), f"no caption among its keys: {keys or 'none'}; name one with columns.caption"
        )
    return captions
