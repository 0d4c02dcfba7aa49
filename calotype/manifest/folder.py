"""A folder of images: sidecar captions, Hugging Face's metadata files, kohya's repeats, or nothing but images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calotype.manifest.kohya import kohya_folders, weighted
from calotype.manifest.listing import METADATA, Listing, stem_of
from calotype.manifest.reading import Part, Reading, make_part
from calotype.manifest.sidecars import sidecar_captions

__all__ = ["read_folder"]


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
        paths = part.paths().to_pylist()
        counts = pc.list_value_length(part.table["captions"]).to_pylist()
        ids.update(zip(paths, part.table["id"].to_pylist(), strict=True))
        captioned.update(path for path, count in zip(paths, counts, strict=True) if count)
    rows = [name for name in listing.images if lead + name not in captioned]
    kohya = kohya_folders(listing, reading)
    captions = sidecar_captions(folder, listing, rows, kohya, reading)
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
        parts = [weighted(part, weights) for part in parts]
    return parts


def _only_present(part: Part, present: set[str], reading: Reading) -> Part:
    """Without the metadata's rows about pictures that are not in the folder."""
    names = part.paths().to_pylist()
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
