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

__all__ = ["Listing", "list_folder", "read_folder"]

DATA_SUFFIXES = frozenset(".json .jsonl .ndjson .csv .tsv .parquet .arrow .feather .tar .tgz .mdb".split())  # noqa: SIM905
_SYSTEM = frozenset({"__macosx", "thumbs.db", "desktop.ini", "lock.mdb", "@eadir", "$recycle.bin"})
_METADATA = frozenset({"metadata.jsonl", "metadata.csv", "metadata.parquet"})
# kohya's `10_name`; no year (2024_holiday) and no counter (01_beach) looks like this.
_KOHYA = re.compile(r"([1-9]\d{0,2})_(.+)")


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
        names_found = list(_walk(folder, recursive))
    except PermissionError as error:
        raise ManifestError(f"{error.filename}: the folder can't be read: {error.strerror}") from None
    for name in names_found:
        suffix = name[len(_stem(name)) :].lower()
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


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122 - a Path for each of 100,000 names costs a second


def _walk(folder: Path, recursive: bool) -> Iterator[str]:
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
    metadata = [name for name in listing.data if Path(name).name.lower() in _METADATA]
    stems = {_stem(name) for name in listing.images}
    unread = [name for name in listing.data if name not in metadata and _stem(name) not in stems]
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
    captions, weights = _sidecars(folder, listing, rows, reading)
    if rows:
        paths = [lead + name for name in rows]
        parts.append(
            make_part(
                len(rows),
                # A picture that the metadata lists without a caption is there already: its sidecar joins it by its id.
                id=[ids.get(path, path) for path in paths],
                ref=paths if any(part.explicit_ids for part in parts) else None,
                captions=captions,
                weight=weights if any(weight != 1.0 for weight in weights) else None,
                where=lambda row: str(folder / rows[row]),
            )
        )
    return parts


def _paths(part: Part) -> pa.ChunkedArray:
    """The pictures of a metadata file, whatever their ids are."""
    return part.table["ref"] if part.explicit_ids else part.table["id"]


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


def _sidecars(folder: Path, listing: Listing, rows: list[str], reading: Reading) -> tuple[list[list[str]], list[float]]:
    """Captions and weights of the pictures `rows`."""
    beside = set(listing.captions)
    used: set[str] = set()
    captions: list[list[str]] = []
    weights: list[float] = []
    kohya: dict[str, tuple[int, str] | None] = {}
    from_folder = 0
    for name in listing.images:
        stem = _stem(name)
        used.update(stem + suffix for suffix in CAPTION_SUFFIXES)
        used.update(name + suffix for suffix in CAPTION_SUFFIXES)
    for name in rows:
        stem = _stem(name)
        own: list[str] = []
        for suffix in CAPTION_SUFFIXES:
            sidecar = name + suffix if name + suffix in beside else stem + suffix
            if sidecar in beside:
                own += _read_sidecar(folder / sidecar, reading)
        top, slash, _ = name.partition("/")
        if slash and top not in kohya:
            match = _KOHYA.fullmatch(top)
            kohya[top] = (int(match[1]), match[2]) if match else None
        repeats = kohya[top] if slash else None
        if repeats and not own:
            own = [repeats[1]]
            from_folder += 1
        captions.append(own)
        weights.append(float(repeats[0]) if repeats else 1.0)
    for top, repeats in kohya.items():
        if repeats:
            reading.note(f"{top}: kohya repeat folder, each picture is shown {repeats[0]} times an epoch")
    if from_folder:
        reading.note(f"{from_folder} picture(s) without a caption file are captioned by kohya's folder name")
    for orphan in sorted(beside - used):
        reading.ledger.add("no_picture", str(folder / orphan), "a caption file with no picture beside it")
    return captions, weights


def _read_sidecar(file: Path, reading: Reading) -> list[str]:
    try:
        return split_captions(decode_text(file.read_bytes()), reading.many_lines)
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text (byte {error.start}); save the caption file as UTF-8"
        reading.bad(str(file), reason)
    except OSError as error:
        raise ManifestError(f"{file}: the caption file can't be read: {error.strerror}") from None
    return []
