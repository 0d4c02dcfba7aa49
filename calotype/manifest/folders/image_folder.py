"""Reads a folder of images with caption files, Hugging Face's metadata files or kohya's repeats."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calotype.manifest.folders.caption_files import caption_files_of, read_caption_files
from calotype.manifest.folders.kohya import kohya_folders, weighted
from calotype.manifest.folders.listing import Listing
from calotype.manifest.folders.unread_files import note_unused_files
from calotype.manifest.names_on_disk import NamesOnDisk
from calotype.manifest.reading import Part, Reading, make_part
from calotype.manifest.unused_captions import note_other_columns

__all__ = ["listed_image", "read_folder"]


def read_folder(
    folder: Path, listing: Listing, reading: Reading, read_metadata: Callable[[Path, Reading], Part]
) -> list[Part]:
    """Read the rows of a folder's images.

    The captions of an image are those in a metadata file; else those in the files beside it (`a.jpg.txt` before
    `a.txt`, then the same with `.caption`, then with `.json`); else, in kohya's `10_name` folders, the folder's name.

    Args:
        folder: The folder.
        listing: The files of the folder.
        reading: The options.
        read_metadata: Reads one data file.
    """
    # Rows that the metadata files list.
    lead = reading.lead(folder)
    metadata = listing.metadata
    images = NamesOnDisk({lead + name for name in listing.images})
    lenient = replace(reading, need_captions=False)
    others = {lead + name for name in listing.other_splits}
    parts = [_only_present(read_metadata(folder / name, lenient), images, others, lead, reading) for name in metadata]
    ids: dict[str, str] = {}  # image → its id in the metadata
    captioned: set[str] = set()
    for part in parts:
        paths = part.paths().to_pylist()
        counts = pc.list_value_length(part.table["captions"]).to_pylist()
        ids.update(zip(paths, part.table["id"].to_pylist(), strict=True))
        captioned.update(path for path, count in zip(paths, counts, strict=True) if count)
    # Caption files of the images without a caption in the metadata.
    rows = [name for name in listing.images if lead + name not in captioned]
    kohya = kohya_folders(listing, reading)
    reading.used.add("caption_suffix")
    files = caption_files_of(listing, reading.caption_suffixes)
    captions = read_caption_files(folder, files, rows, kohya, reading)
    # Files and columns that may hold captions and are not read.
    unread = [name for name in listing.data if name not in metadata]
    note_unused_files(folder, listing, files, unread, reading)
    without = {lead + name for name, own in zip(rows, captions, strict=True) if not own}
    for name, part in zip(metadata, parts, strict=True):
        if not without.isdisjoint(part.paths().to_pylist()):
            note_other_columns(str(folder / name), part, reading)
    if rows:
        paths = [lead + name for name in rows]
        parts.append(
            make_part(
                len(rows),
                # An image that the metadata lists without a caption has a row already: `assemble` merges the two by id.
                id=[ids.get(path, path) for path in paths],
                ref=paths if any(part.explicit_ids for part in parts) else None,
                captions=captions,
                where=lambda row: str(folder / rows[row]),
            )
        )
    if kohya:
        inside = ((lead + name, name.rpartition("/")[0]) for name in listing.images)
        weights = {path: kohya[parent][0] for path, parent in inside if parent in kohya}
        parts = [weighted(part, weights) for part in parts]
    return parts


def listed_image(
    name: str,
    images: NamesOnDisk,
    listed: Collection[str],
    reading: Reading,
    *,
    lead: str = "",
    other_splits: Collection[str] = (),
) -> str | None:
    """Find the image that a row of a metadata file names.

    Args:
        name: The reference, relative to `reading.root`.
        images: The images of the folder, as references.
        listed: The references of all rows: two of them never become one image.
        reading: The options.
        lead: Prefix of references to files of the folder.
        other_splits: Images of splits that are not read.

    Returns:
        The reference with the name that the file has on disk. None: the image is excluded, or of another split.

    Raises:
        FileNotFoundError: There is no such image.
    """
    if name in images or name.startswith(("/", "../")) or "://" in name:
        return name
    if name in other_splits or (reading.exclude and reading.exclude.match_within(name.removeprefix(lead))):
        return None
    if os.path.isfile(reading.root / name):  # noqa: PTH113 - False for a name that is too long, too
        return name
    found = images.find(name)
    if found is None or found in listed:
        raise FileNotFoundError(name)
    return found


def _only_present(part: Part, images: NamesOnDisk, other_splits: set[str], lead: str, reading: Reading) -> Part:
    """Drop the metadata's rows about images that are not in the folder, and use the names that files have on disk."""
    names = part.paths().to_pylist()
    rows = part.table["_row"].to_numpy()
    keep = np.ones(len(names), dtype=bool)
    listed = set(names)
    renamed: dict[int, str] = {}
    for row, name in enumerate(names):
        try:
            found = listed_image(name, images, listed, reading, lead=lead, other_splits=other_splits)
        except FileNotFoundError:
            alike = images.alike(name)
            hint = f"; it may be one of {', '.join(map(repr, alike[:3]))}" if alike else ""
            reading.bad(part.where(int(rows[row])), f"the image {name!r} is not there{hint}")
            found = None
        keep[row] = found is not None
        if found is not None and found != name:
            renamed[row] = found
    if renamed:
        first = next(iter(renamed.values()))
        reading.note(f"{len(renamed):,} image(s) have names in another case or Unicode form than the metadata: {first}")
        paths = [renamed.get(row, path) for row, path in enumerate(names)]
        part = part.with_column("ref" if part.explicit_ids else "id", pa.array(paths, pa.large_string()))
    return part if keep.all() else part.filter(keep)
