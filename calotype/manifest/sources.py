"""Determines what a path is (image folder, data files, archives, saved dataset, hub dataset) and reads it."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calotype.core.small_files import require_regular
from calotype.errors import ConfigError, ManifestError, MissingPathError
from calotype.manifest.file_kinds import CAPTION_SUFFIXES, IMAGE_SUFFIXES, archive_suffix, stem_of, unpack_command
from calotype.manifest.folders.caption_files import CaptionFiles
from calotype.manifest.folders.image_folder import read_folder
from calotype.manifest.folders.listing import Listing, leave_out, list_folder
from calotype.manifest.folders.named_splits import ALL, select_split_files
from calotype.manifest.folders.unread_files import name_left_out
from calotype.manifest.manifest import REMOTE
from calotype.manifest.paths import PathLike, absolute, exists, expand_braces, similar_folder, suggestion
from calotype.manifest.readers.arrow_files import read_arrow, read_parquet
from calotype.manifest.readers.delimited import read_delimited
from calotype.manifest.readers.hub import is_saved_dataset, read_hub, read_saved
from calotype.manifest.readers.json_files import read_json
from calotype.manifest.readers.members import read_lmdb, read_tar
from calotype.manifest.reading import Part, Reading
from calotype.manifest.unused_captions import note_other_columns

__all__ = ["Sources", "data_files_of", "find_sources", "read_sources"]

_READERS: dict[str, Callable[[Path, Reading], Part]] = {
    ".tar": read_tar,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".parquet": read_parquet,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".json": read_json,
    ".lmdb": read_lmdb,
    ".mdb": read_lmdb,
}
"""Suffix → reader. A folder without images that has data files of several kinds is read by the first kind here."""

_TEXT_FILES = frozenset({".jsonl", ".ndjson", ".csv", ".tsv"})

_BUILDERS = frozenset({"json", "csv", "parquet", "arrow", "webdataset", "imagefolder"})
"""Builders of `datasets`: with `data_files` they refer to local files, which are read here."""

_DESCRIPTIONS = frozenset({"dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json", "index.json"})
"""Names of files that describe a folder of shards."""
_MAX_SHOWN = 200
"""Maximum characters of a path in an error message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The files, folders or hub dataset to read."""

    root: Path
    """Folder that ids are relative to."""
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    hub: str | None = None
    data_files: Any = None

    def __str__(self) -> str:
        paths = [str(path) for path in (*self.folders, *self.files, *self.images)]
        return self.hub or (paths[0] if len(paths) == 1 else f"{len(paths)} files in {self.root}")


def find_sources(path: PathLike | Sequence[PathLike], data_files: Any, split: str | None) -> Sources:
    """Determine the files, folders or hub dataset that `path` and `data_files` refer to.

    Args:
        path: See `load_manifest`.
        data_files: See `load_manifest`.
        split: The split whose files to choose, if `data_files` is a mapping.

    Raises:
        ConfigError: They contradict each other.
        MissingPathError: A path does not exist.
        ManifestError: Files of this kind are not supported.
    """
    if isinstance(path, str) and path in _BUILDERS and not Path(path).exists():
        if data_files is None:
            raise ConfigError(f"path: {path!r} is a kind of file; set data_files= to the files, or give their path")
        return _local(_patterns(data_files, split))
    if isinstance(path, str) and not glob.has_magic(path) and _may_be_hub(path) and not _exists(absolute(path)):
        if folder := similar_folder(path):
            raise MissingPathError(
                f"{path}: there is no such file or folder; did you mean {folder!r}? (As the names are so similar, "
                "no dataset of this name was looked up on the Hugging Face hub)"
            )
        return Sources(root=Path.cwd(), hub=path, data_files=data_files)
    paths: list[PathLike] = [path] if isinstance(path, str | os.PathLike) else list(path)
    if data_files is not None:
        if len(paths) != 1 or not absolute(paths[0]).is_dir():
            raise ConfigError(f"data_files: needs a dataset's name or one folder as path, not {path!r}")
        paths = [absolute(paths[0]) / pattern for pattern in _patterns(data_files, split)]
    return _local(paths)


def _patterns(data_files: Any, split: str | None) -> list[str]:
    if isinstance(data_files, Mapping) and split == ALL:
        return [pattern for each in data_files.values() for pattern in _patterns(each, None)]
    if isinstance(data_files, Mapping):
        wanted = split or ("train" if "train" in data_files else next(iter(data_files), None))
        if wanted not in data_files:
            raise ConfigError(f"data_files: no split {wanted!r}; it has {', '.join(map(repr, data_files))}")
        data_files = data_files[wanted]
    return (
        [os.fspath(data_files)]
        if isinstance(data_files, str | os.PathLike)
        else [os.fspath(each) for each in data_files]
    )


def _may_be_hub(path: str) -> bool:
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", path) or path.endswith("."):
        return False
    owner, _, name = path.partition("/")
    if Path(name or owner).suffix.lower() in {*_READERS, *IMAGE_SUFFIXES, ".txt", ".zip"}:
        return False
    return not (name and Path(owner).is_dir())


def _local(paths: Sequence[PathLike]) -> Sources:
    """Classify local paths as folders, images and data files."""
    found: list[Path] = []
    for each in paths:
        if not isinstance(each, str | os.PathLike):
            raise ConfigError(f"path: found {each!r}, expected a folder, a file, a pattern, or a list of these")
        if REMOTE.match(os.fspath(each)):
            raise ManifestError(
                f"{each}: data files and folders are read from this machine's disks; copy it here first. (The images "
                "that a data file names may be remote.)"
            )
        found += _expand(absolute(each))
    found = list(dict.fromkeys(found))
    if not found:
        raise ManifestError("the list of paths is empty")
    folders = [path for path in found if path.is_dir() and not _is_lmdb(path)]
    files = [path for path in found if path not in set(folders)]
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    data = [file for file in files if file.suffix.lower() in _READERS or _is_lmdb(file)]
    other = [file for file in files if file not in {*images, *data}]
    if len(found) > 1:  # a glob such as photos/* matches the caption files too
        other = [file for file in other if file.suffix.lower() not in CAPTION_SUFFIXES]
    if other:
        if archive_suffix(other[0].name):
            raise ManifestError(f"{other[0]}: packed files are not read. Unpack it: {unpack_command(str(other[0]))}")
        raise ManifestError(
            f"{other[0]}: a file of this kind is not read; expected a folder, or one of {' '.join(_READERS)}"
        )
    root = Path(os.path.commonpath([path if path in set(folders) else path.parent for path in found]))
    return Sources(root=root, files=data, folders=folders, images=images)


def _expand(path: Path) -> list[Path]:
    """Return the path itself, or the files that its braces and wildcards match."""
    if _exists(path):
        return [path]
    names = expand_braces(str(path))
    found: list[str] = []
    missing: list[str] = []
    for name in names:
        matches = glob.glob(name, recursive=True) if glob.has_magic(name) else [name] * _exists(Path(name))  # noqa: PTH207
        found += sorted(matches)
        missing += [name] * (not matches)
    if len(names) > 1 and missing:
        few = ", ".join(missing[:3])
        raise MissingPathError(
            f"{path}: {len(missing):,} of the {len(names):,} files that it expands to are not there: {few}"
            f"{', …' if len(missing) > 3 else ''}"
        )
    if missing:
        reason = (
            "no file matches this pattern"
            if glob.has_magic(names[0])
            else f"there is no such file or folder{suggestion(path)}"
        )
        raise MissingPathError(f"{path}: {reason}")
    return [Path(name) for name in found]


def _exists(path: Path) -> bool:
    try:
        return exists(path)
    except OSError as error:
        name = str(path)
        raise ManifestError(
            f"{name if len(name) < _MAX_SHOWN else f'{name[:_MAX_SHOWN]}…'}: can't be looked up: {error.strerror}"
        ) from None


def _is_lmdb(path: Path) -> bool:
    return os.path.isfile(path / "data.mdb")  # noqa: PTH113 - False in a folder that can't be read


def read_sources(sources: Sources, reading: Reading) -> tuple[list[Part], list[str]]:
    """Read all parts; return them and the names of their formats."""
    if sources.hub is not None:
        return read_hub(sources.hub, sources.data_files, reading), ["hub"]
    parts: list[Part] = []
    formats: list[str] = []
    for folder in sources.folders:
        more, kinds = _read_folder(folder, reading)
        parts += more
        formats += kinds
    beside = _beside(sources.images, reading)
    for file in _with_rows([file for file in sources.files if reading.relative(file) not in beside], reading):
        parts.append(_read_data_file(file, reading))
        formats.append(_format(file))
    if sources.images:
        listing = Listing(images=sorted(map(reading.relative, sources.images)), captions=sorted(beside))
        leave_out(listing, reading.root, reading.exclude)
        found = read_folder(reading.root, listing, reading, _read_file)
        name_left_out(reading.root, listing, found, reading)
        parts += found
        formats.append("images")
    return parts, formats


def _beside(images: Sequence[Path], reading: Reading) -> set[str]:
    """Return the caption files beside single images."""
    chosen = [reading.relative(image) for image in images]
    others = [
        reading.relative(folder / name)
        for folder in dict.fromkeys(image.parent for image in images)
        for name in os.listdir(folder)  # noqa: PTH208 - names are enough
        if name.lower().endswith(reading.caption_suffixes)
    ]
    return CaptionFiles(chosen, others, reading.caption_suffixes).used()


def _format(file: Path) -> str:
    return "lmdb" if _is_lmdb(file) else file.suffix[1:].lower()


def _read_file(file: Path, reading: Reading) -> Part:
    try:
        if _is_lmdb(file):
            return read_lmdb(file, reading)
        require_regular(file)
        return _READERS[file.suffix.lower()](file, reading)
    except OSError as error:
        if error.filename not in (str(file), str(file / "data.mdb")):
            raise  # an error of the cache, or of a file that this one names
        raise ManifestError(f"{file}: can't be read: {error.strerror}") from None


def _read_data_file(file: Path, reading: Reading) -> Part:
    part = _read_file(file, reading)
    note_other_columns(str(file), part, reading)
    return part


def _read_folder(folder: Path, reading: Reading) -> tuple[list[Part], list[str]]:
    if is_saved_dataset(folder):
        return read_saved(folder, reading), ["saved dataset"]
    whole = list_folder(folder, reading.recursive, reading.bad, reading.caption_suffixes, reading.exclude)
    parts, kinds = _read_listing(folder, whole, reading)
    name_left_out(folder, whole, parts, reading)
    return parts, kinds


def _read_listing(folder: Path, listing: Listing, reading: Reading) -> tuple[list[Part], list[str]]:
    listing = select_split_files(folder, listing, reading)
    if listing.images:
        if reading.image_root is not None:
            raise ConfigError(f"root: {folder} is a folder of images, whose paths need no root; root is for data files")
        return read_folder(folder, listing, reading, _read_file), ["folder"]
    return _read_data_folder(folder, listing, reading)


def _read_data_folder(folder: Path, listing: Listing, reading: Reading) -> tuple[list[Part], list[str]]:
    """Read a folder without images: shards or data files of one kind."""
    files = data_files_of(folder, listing)
    if not files:
        return [], ["folder"]
    kind = ".mdb" if _is_lmdb(files[0]) else files[0].suffix.lower()
    if len(files) < len(listing.data):
        others = sorted({Path(name).suffix for name in listing.data} - {kind})
        reading.note(f"read the {kind} files of the folder, not its {', '.join(others)} files")
        stems = {stem_of(name) for name in listing.data if Path(name).suffix.lower() == kind}
        for name in listing.data:
            # img2dataset's 00000.parquet and 00000_stats.json describe 00000.tar.
            is_description = stem_of(name).removesuffix("_stats") in stems or Path(name).name in _DESCRIPTIONS
            if not is_description and Path(name).suffix.lower() != kind:
                reason = f"not read, because the folder's {kind} files are; give it as path to use it"
                reading.ledger.add("unread_data", str(folder / name), reason)
    return [_read_data_file(file, reading) for file in _with_rows(files, reading)], [kind[1:]]


def _with_rows(files: Sequence[Path], reading: Reading) -> list[Path]:
    """Drop empty text files, which writers of shards may leave behind, unless all are empty."""
    empty = {file for file in files if file.suffix.lower() in _TEXT_FILES and _is_empty(file)}
    if len(empty) == len(files):
        return list(files)
    for file in sorted(empty):
        reading.note(f"{reading.label(file)} is empty")
    return [file for file in files if file not in empty]


def _is_empty(file: Path) -> bool:
    try:
        return file.is_file() and not file.stat().st_size
    except OSError:
        return False


def data_files_of(folder: Path, listing: Listing) -> list[Path]:
    """Return the data files that a folder without images is read from: all of one kind, and LMDB environments."""
    for suffix in _READERS:
        files = [folder / name for name in listing.data if Path(name).suffix.lower() == suffix]
        if files:
            return [file.parent if file.name == "data.mdb" else file for file in files]
    return []
