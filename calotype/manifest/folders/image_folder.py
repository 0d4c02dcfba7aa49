"""A folder of images: sidecar captions, Hugging Face's metadata files, kohya's repeats, or nothing but images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calotype.manifest.file_kinds import METADATA
from calotype.manifest.folders.caption_files import caption_files_of, read_caption_files
from calotype.manifest.folders.kohya import kohya_folders, weighted
from calotype.manifest.folders.listing import Listing
from calotype.manifest.folders.unread_files import note_unused_files
from calotype.manifest.names_on_disk import NamesOnDisk
from calotype.manifest.reading import Part, Reading, make_part
from calotype.manifest.unused_captions import note_other_columns

__all__ = ["read_folder"]


def read_folder(
    folder: Path, listing: Listing, reading: Reading, read_metadata: Callable[[Path, Reading], Part]
) -> list[Part]:
    """The rows of a folder's images.

    An image's captions come from the metadata file nearest above it if that has any for it, else from the files
    beside it (`a.jpg.txt` before `a.txt`, then the same with `.caption`, then with `.json`), else, in kohya's `10_name`
    folders, from the folder's name.
    """
    lead = reading.relative(folder)
    lead = "" if lead == "." else f"{lead}/"
    metadata = [name for name in listing.data if Path(name).name.lower() in METADATA]
    present = {lead + name for name in listing.images}
    lenient = replace(reading, need_captions=False)
    elsewhere = {lead + name for name in listing.other_splits}
    parts = [
        _only_present(read_metadata(folder / name, lenient), present, elsewhere, lead, reading) for name in metadata
    ]
    ids: dict[str, str] = {}  # image → the id that the metadata gives it
    captioned: set[str] = set()
    for part in parts:
        paths = part.paths().to_pylist()
        counts = pc.list_value_length(part.table["captions"]).to_pylist()
        ids.update(zip(paths, part.table["id"].to_pylist(), strict=True))
        captioned.update(path for path, count in zip(paths, counts, strict=True) if count)
    rows = [name for name in listing.images if lead + name not in captioned]
    kohya = kohya_folders(listing, reading)
    reading.used.add("caption_suffix")
    files = caption_files_of(listing, reading.caption_suffixes)
    captions = read_caption_files(folder, files, rows, kohya, reading)
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
                # An image that the metadata lists without a caption is there already: its sidecar joins it by its id.
                id=[ids.get(path, path) for path in paths],
                ref=paths if any(part.explicit_ids for part in parts) else None,
                captions=captions,
                where=lambda row: str(folder / rows[row]),
            )
        )
    if kohya:
        inside = ((lead + name, name.rpartition("/")[0]) for name in listing.images)
        weights = {path: kohya[home][0] for path, home in inside if home in kohya}
        parts = [weighted(part, weights) for part in parts]
    return parts


def _only_present(part: Part, present: set[str], elsewhere: set[str], lead: str, reading: Reading) -> Part:
    """Without the metadata's rows about images that are not in the folder.

    Those of another split, and those that `exclude` leaves out, go without a word.
    """
    names = part.paths().to_pylist()
    rows = part.table["_row"].to_numpy()
    keep = np.ones(len(names), dtype=bool)
    on_disk = NamesOnDisk(present)
    listed: set[str] = set()
    renamed: dict[int, str] = {}
    for place, name in enumerate(names):
        if name in present or name.startswith(("/", "../")) or "://" in name:
            continue
        if name in elsewhere or (reading.exclude and reading.exclude.match_within(name.removeprefix(lead))):
            keep[place] = False
        elif os.path.isfile(reading.root / name):  # noqa: PTH113 - False for a name that is too long, too
            continue
        elif (found := on_disk.find(name)) is not None and found not in (listed := listed or set(names)):
            renamed[place] = found
        else:
            alike = on_disk.alike(name)
            there = f"; it may be one of {', '.join(map(repr, alike[:3]))}" if alike else ""
            reading.bad(part.where(int(rows[place])), f"the image {name!r} is not there{there}")
            keep[place] = False
    if renamed:
        part = _renamed(part, renamed, reading)
    if keep.all():
        return part
    return Part(table=part.table.filter(pa.array(keep)), where=part.where, explicit_ids=part.explicit_ids)


def _renamed(part: Part, renamed: dict[int, str], reading: Reading) -> Part:
    """With the names that the files have on the disk."""
    column = "ref" if part.explicit_ids else "id"
    paths = [renamed.get(place, path) for place, path in enumerate(part.paths().to_pylist())]
    place = part.table.column_names.index(column)
    table = part.table.set_column(place, column, pa.array(paths, pa.large_string()))
    first = next(iter(renamed.values()))
    reading.note(f"{len(renamed):,} image(s) have names in another case or Unicode form than the metadata: {first}")
    return Part(table=table, where=part.where, explicit_ids=part.explicit_ids)
