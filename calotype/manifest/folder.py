"""A folder of pictures: sidecar captions, Hugging Face's metadata files, kohya's repeats, or nothing but pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calotype.errors import ManifestError
from calotype.manifest.captions import decode_text, split_captions
from calotype.manifest.reading import CAPTION_SUFFIXES, IMAGE_SUFFIXES, Part, Reading, make_part

__all__ = [
    "DATA_SUFFIXES",
    "KOHYA_FOLDER",
    "METADATA",
    "Listing",
    "caption_files",
    "kohya_folders",
    "list_folder",
    "read_folder",
    "stem_of",
    "walk_folder",
]

DATA_SUFFIXES = frozenset(".json .jsonl .ndjson .csv .tsv .parquet .arrow .feather .tar .tgz .mdb".split())  # noqa: SIM905
_SYSTEM = frozenset({"__macosx", "thumbs.db", "desktop.ini", "lock.mdb", "@eadir", "$recycle.bin"})
METADATA = frozenset({"metadata.jsonl", "metadata.csv", "metadata.parquet"})
"""Names of Hugging Face's metadata files, in lower case."""
KOHYA_FOLDER = re.compile(r"([1-9]\d{0,2})_(.+)")
"""kohya's `10_name`: repeats and class; no year (2024_holiday) and no counter (01_beach) looks like this."""


@dataclass(slots=True, kw_only=True)
class Listing:
    """What lies in a folder, as posix paths relative to it, each list sorted."""

    images: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)


def list_folder(folder: Path, recursive: bool, on_odd_name: Callable[[str, str], None]) -> Listing:
    """Looks through a folder once. Hidden and system files are passed over; a loop of links is walked once."""
    found = Listing()
    try:
        names_found = list(walk_folder(folder, recursive))
    except PermissionError as error:
        raise ManifestError(f"{error.filename}: the folder can't be read: {error.strerror}") from None
    for name in names_found:
        suffix = name[len(stem_of(name)) :].lower()
        if suffix in IMAGE_SUFFIXES:
            names = found.images
        elif suffix in CAPTION_SUFFIXES:
            names = found.captions
        elif suffix in DATA_SUFFIXES:
            names = found.data
        else:
            continue
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            on_odd_name(f"{folder}/{name!a}", "the file's name is not UTF-8; rename it")
            continue
        names.append(name)
    for names in (found.images, found.captions, found.data):
        names.sort()
    return found


def stem_of(name: str) -> str:
    """The name without its suffix."""
    return os.path.splitext(name)[0]  # noqa: PTH122 - a Path for each of 100,000 names costs a second


def walk_folder(folder: Path, recursive: bool) -> Iterator[str]:
    """All files in a folder, relative to it, but hidden and system ones."""
    seen: set[tuple[int, int]] = set()
    stack = [""]
    while stack:
        inside = stack.pop()
        place = f"{folder}/{inside}"
        stat = Path(place).stat()
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        below = []
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
                    continue
                if entry.is_dir():
                    below.append(f"{inside}{entry.name}/")
                elif entry.is_file() or entry.is_symlink():  # a broken link is for the reader to name
                    yield inside + entry.name
        if recursive:
            stack.extend(sorted(below, reverse=True))


def read_folder(
    folder: Path, listing: Listing, reading: Reading, read_metadata: Callable[[Path, Reading], Part]
) -> list[Part]:
    """The rows of a folder's pictures.

    A picture's captions come from the metadata file nearest above it if that has any for it, else from the files
    beside it (`a.jpg.txt` before `a.txt`, then the same with `.caption`), else, in kohya's `10_name` folders, from
    the folder's name.
    """
    lead = reading.relative(folder)
    lead = "" if lead == "." else f"{lead}/"
    metadata = [name for name in listing.data if Path(name).name.lower() in METADATA]
    stems = {stem_of(name) for name in listing.images}
    unread = [name for name in listing.data if name not in metadata and stem_of(name) not in stems]
    if unread:
        reading.note(
            f"not read, because the folder has pictures: {', '.join(unread[:3])}{', …' if len(unread) > 3 else ''}; "
            "give such a file as path to use it"
        )
    present = {lead + name for name in listing.images}
    lenient = replace(reading, need_captions=False)
    parts = [_only_present(read_metadata(folder / name, lenient), present, reading) for name in metadata]
    ids: dict[str, str] = {}  # picture → the id that the metadata gives it
    captioned: set[str] = set()
    for part in parts:
        paths = _paths(part).to_pylist()
        counts = pc.list_value_length(part.table["captions"]).to_pylist()
        ids.update(zip(paths, part.table["id"].to_pylist(), strict=True))
        captioned.update(path for path, count in zip(paths, counts, strict=True) if count)
    rows = [name for name in listing.images if lead + name not in captioned]
    kohya = kohya_folders(listing, reading)
    captions = _sidecars(folder, listing, rows, kohya, reading)
    if rows:
        paths = [lead + name for name in rows]
        parts.append(
            make_part(
                len(rows),
                # A picture that the metadata lists without a caption is there already: its sidecar joins it by its id.
                id=[ids.get(path, path) for path in paths],
                ref=paths if any(part.explicit_ids for part in parts) else None,
                captions=captions,
                where=lambda row: str(folder / rows[row]),
            )
        )
    if kohya:
        tops = ((lead + name, name.partition("/")[0]) for name in listing.images)
        weights = {path: kohya[top][0] for path, top in tops if top in kohya}
        parts = [_weighted(part, weights) for part in parts]
    return parts


def _paths(part: Part) -> pa.ChunkedArray:
    """The pictures, whatever their ids are."""
    refs = part.table["ref"]
    return part.table["id"] if pa.types.is_null(refs.type) else pc.coalesce(refs, part.table["id"])


def _only_present(part: Part, present: set[str], reading: Reading) -> Part:
    """Without the metadata's rows about pictures that are not in the folder."""
    names = _paths(part).to_pylist()
    rows = part.table["_row"].to_numpy()
    keep = np.ones(len(names), dtype=bool)
    for place, name in enumerate(names):
        outside = name.startswith(("/", "../")) or "://" in name
        if name not in present and not outside and not (reading.root / name).is_file():
            reading.bad(part.where(int(rows[place])), f"the picture {name!r} is not there")
            keep[place] = False
    if keep.all():
        return part
    return Part(table=part.table.filter(pa.array(keep)), where=part.where, explicit_ids=part.explicit_ids)


def kohya_folders(listing: Listing, reading: Reading) -> dict[str, tuple[float, str]]:
    """Name of each top folder that is a kohya repeat folder → repeats, class name."""
    found: dict[str, tuple[float, str]] = {}
    for top in sorted({name.partition("/")[0] for name in listing.images if "/" in name}):
        match = KOHYA_FOLDER.fullmatch(top)
        if match:
            found[top] = float(match[1]), match[2]
            reading.note(f"{top}: kohya repeat folder, each picture is shown {match[1]} times an epoch")
    return found


def _weighted(part: Part, weights: dict[str, float]) -> Part:
    """With the folders' repeats where the metadata gives no weight of its own."""
    given = part.table["weight"].to_pylist()
    filled = [
        weights.get(path) if weight is None else weight
        for path, weight in zip(_paths(part).to_pylist(), given, strict=True)
    ]
    place = part.table.column_names.index("weight")
    table = part.table.set_column(place, "weight", pa.array(filled, pa.float64()))
    return Part(table=table, where=part.where, explicit_ids=part.explicit_ids)


def _sidecars(
    folder: Path, listing: Listing, rows: list[str], kohya: dict[str, tuple[float, str]], reading: Reading
) -> list[list[str]]:
    """Captions of the pictures `rows`."""
    beside = set(listing.captions)
    used: set[str] = set()
    captions: list[list[str]] = []
    from_folder = 0
    for name in listing.images:
        stem = stem_of(name)
        used.update(stem + suffix for suffix in CAPTION_SUFFIXES)
        used.update(name + suffix for suffix in CAPTION_SUFFIXES)
    for name in rows:
        own: list[str] = []
        sidecars = caption_files(name, beside.__contains__)
        for sidecar in sidecars:
            own += _read_sidecar(folder / sidecar, reading)
        repeats, class_name = kohya.get(name.partition("/")[0], (None, ""))
        if repeats is not None and not sidecars:  # an empty file is an empty caption, to kohya too
            own = [class_name]
            from_folder += 1
        captions.append(own)
    if from_folder:
        reading.note(f"{from_folder} picture(s) without a caption file are captioned by kohya's folder name")
    for orphan in sorted(beside - used):
        reading.ledger.add("no_picture", str(folder / orphan), "a caption file with no picture beside it")
    return captions


def caption_files(picture: str, is_there: Callable[[str], bool]) -> list[str]:
    """The files beside a picture that hold its captions: `a.jpg.txt`, else `a.txt`; then the same with `.caption`."""
    found = []
    for suffix in CAPTION_SUFFIXES:
        sidecar = picture + suffix if is_there(picture + suffix) else stem_of(picture) + suffix
        if is_there(sidecar):
            found.append(sidecar)
    return found


def _read_sidecar(file: Path, reading: Reading) -> list[str]:
    try:
        return split_captions(decode_text(file.read_bytes()), reading.many_lines)
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text (byte {error.start}); save the caption file as UTF-8"
        reading.bad(str(file), reason)
    except OSError as error:
        raise ManifestError(f"{file}: the caption file can't be read: {error.strerror}") from None
    return []
