"""`open_captions`: finds out what a path is, and opens its captions for editing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from calotype.editing.captions import Captions
from calotype.editing.data_file_captions import DataFileCaptions
from calotype.editing.folder_captions import FolderCaptions
from calotype.editing.known_folder import KnownFolder
from calotype.errors import EditError, ManifestError
from calotype.ledger import Ledger
from calotype.manifest.options import parse_options
from calotype.manifest.paths import PathLike
from calotype.manifest.readers.hub import is_saved_dataset
from calotype.manifest.sources import data_files_of, find_sources
from calotype.manifest.tables.columns import ColumnMap

__all__ = ["open_captions"]


def open_captions(
    path: PathLike | Sequence[PathLike],
    *,
    columns: ColumnMap | None = None,
    root: PathLike | None = None,
    recursive: bool = True,
    exclude: str | Sequence[str] | None = None,
    caption_lines: Literal["one", "many"] | None = None,
    caption_suffix: str | Sequence[str] | None = None,
    delimiter: str | None = None,
) -> Captions:
    """Open the captions of a folder of images or of data files, to read and change them in place.

    Rows, ids and captions are those of `load_manifest` with the same options, without bad rows.

    Args:
        path: One folder, or one or more `.csv`, `.tsv`, `.json` or `.jsonl` files.
        columns: As for `load_manifest`.
        root: As for `load_manifest`.
        recursive: As for `load_manifest`.
        caption_lines: As for `load_manifest`.
        caption_suffix: As for `load_manifest`.
        exclude: As for `load_manifest`.
        delimiter: As for `load_manifest`.

    Raises:
        EditError: The form of the data can be read but not changed in place; the message has the command that converts
            it.
        ManifestError: It can't be read.
    """
    sources = find_sources(path, None, None)
    if sources.hub is not None:
        raise _read_only(str(path), "captions of a hub dataset")
    folder = sources.folders[0] if len(sources.folders) == 1 and not sources.files and not sources.images else None
    if sources.images or (sources.folders and folder is None):
        raise EditError(f"{sources}: captions are changed in one folder, or in data files; pass the folder itself")
    reading = parse_options(
        sources.root,
        columns=columns,
        root=root,
        recursive=recursive,
        exclude=exclude,
        caption_lines=caption_lines,
        caption_suffix=caption_suffix,
        delimiter=delimiter,
        need_captions=False,
        skip=True,
        ledger=Ledger(),
    )
    if folder is None:
        return DataFileCaptions(sources.files, reading)
    if is_saved_dataset(folder):
        raise _read_only(str(folder), "captions of a saved dataset")
    known = KnownFolder(folder, reading)
    if known.listing.images:
        return FolderCaptions(known, reading)
    files = data_files_of(folder, known.listing)
    if not files:
        raise ManifestError(f"{folder}: no images found; expected images, or a data file that lists them")
    return DataFileCaptions(files, reading)


def _read_only(path: str, what: str) -> EditError:
    return EditError(
        f"{path}: {what} can't be changed in place; `calotype convert {path} NEW_FOLDER --to imagefolder` makes a "
        "folder of it, whose captions can"
    )
