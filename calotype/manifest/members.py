"""Archives whose members belong together by their names: WebDataset tar shards and LMDB environments."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from calotype.errors import ManifestError
from calotype.manifest.captions import decode_text, split_captions
from calotype.manifest.columns import find_columns
from calotype.manifest.json_depth import loads
from calotype.manifest.lmdb_index import lmdb_index
from calotype.manifest.reading import IMAGE_SUFFIXES, Part, Reading
from calotype.manifest.tables import Embedded, table_part
from calotype.manifest.tar_index import tar_index
from calotype.manifest.values import table_of

__all__ = ["read_lmdb", "read_tar"]

_IMAGE = "\0image"
"""No name that JSON beside a picture would use."""
_CAPTION = "\0caption"


@dataclass(slots=True)
class _Picture:
    key: str
    """What it shares with its texts."""
    name: str
    offset: int = 0
    size: int = 0
    lmdb_key: bytes | None = None


@dataclass(slots=True)
class _Members:
    pictures: list[_Picture] = field(default_factory=list)
    texts: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """key → suffix → content."""


def read_tar(file: Path, reading: Reading) -> Part:
    """A WebDataset shard: members of one name up to the first dot are one sample."""
    found = _Members()
    names: set[str] = set()
    index = tar_index(file).to_pydict()
    for name, offset, size, data in zip(index["name"], index["offset"], index["size"], index["data"], strict=True):
        folder, base = posixpath.split(name)
        if base.startswith(".") or "__MACOSX" in folder:
            continue
        stem, dot, suffix = base.partition(".")
        key = posixpath.join(folder, stem)
        suffix = (dot + suffix).lower()
        if suffix in IMAGE_SUFFIXES:
            if name in names:
                reading.bad(f"{file}!{name}", "this picture is in the archive twice; its name must be unique")
                continue
            names.add(name)
            found.pictures.append(_Picture(key, name, offset, size))
        elif data is not None:
            found.texts.setdefault(key, {})[suffix] = data
    return _part(file, found, reading)


_PREFIXED = re.compile(r"(image|img|caption|text|label)s?([-_:/].+)")


def read_lmdb(path: Path, reading: Reading) -> Part:
    """An LMDB environment (a folder with `data.mdb`, or one file) whose values are image files and texts.

    They go together by key: `a.jpg` with `a.txt`, `a.caption` or `a.json`; `image-1` with `caption-1`, `text-1` or
    `label-1`; or a bare `a` that is a picture with `a.txt`.
    """
    found = _Members()
    index = lmdb_index(path)
    for key, image, value in zip(*(index[name].to_pylist() for name in ("key", "image", "data")), strict=True):
        try:
            name = key.decode("utf-8")
        except UnicodeDecodeError:
            name = key.decode("latin-1")
        stem, suffix = posixpath.splitext(name)
        prefixed = _PREFIXED.fullmatch(name)
        if image:
            shared = prefixed[2] if prefixed else (stem if suffix.lower() in IMAGE_SUFFIXES else name)
            found.pictures.append(_Picture(shared, name, lmdb_key=key))
        elif value is None:
            continue
        elif suffix.lower() in (".txt", ".caption", ".json"):
            found.texts.setdefault(stem, {})[suffix.lower()] = value
        elif prefixed:
            found.texts.setdefault(prefixed[2], {})[".txt"] = value
    return _part(path, found, reading)


def _part(file: Path, found: _Members, reading: Reading) -> Part:
    """Rows from members; JSON beside a picture gives its other values as extras.

    It gives the captions too where no text does, or where the text is the first of them.
    """
    if not found.pictures:
        raise ManifestError(f"{file}: no pictures found in it; expected members such as a.jpg with a.txt beside it")
    label = reading.label(file)
    rows: list[dict[str, Any]] = []
    kept: list[_Picture] = []
    for picture in found.pictures:
        texts = found.texts.get(picture.key, {})
        try:
            rows.append(_row(texts, reading))
        except ValueError as error:
            reading.bad(f"{file}!{picture.name}", f"its caption can't be read: {error}")
        else:
            kept.append(picture)
    taken = {picture.key for picture in found.pictures}
    for key in found.texts:
        if key not in taken:
            reading.ledger.add("no_picture", f"{label}!{key}", "a caption with no picture beside it")
    names = list(dict.fromkeys(name for row in rows for name in row if name != _CAPTION))
    columns = find_columns([_IMAGE, _CAPTION, *names], _given(reading), str(file))
    in_json = _json_captions(names, reading, str(file)) if names else ()
    told_apart = False
    for row in rows:
        own = [row.get(name) for name in in_json]
        listed = [text for one in own for text in (one if isinstance(one, list) else [one]) if isinstance(text, str)]
        if not row[_CAPTION] or (listed and row[_CAPTION] == split_captions(listed[0], bool(reading.many_lines))):
            row[_CAPTION] = listed
        elif listed:
            told_apart = True
    if not told_apart:  # they are the captions, and nothing of their own
        names = [name for name in names if name not in in_json]
    table = table_of(rows, [_IMAGE, _CAPTION, *names], [_CAPTION])
    return table_part(
        table,
        reading,
        label=str(file),
        base=file.parent,
        where=lambda row: f"{file}!{kept[row].name}",
        embedded=_embedded(file, label, kept),
        columns=columns,
    )


def _given(reading: Reading) -> dict[str, tuple[str, ...] | None]:
    others = {meaning: names for meaning, names in reading.columns.items() if meaning not in ("image", "caption")}
    return {**others, "image": (_IMAGE,), "caption": (_CAPTION,)}


def _json_captions(names: Sequence[str], reading: Reading, where: str) -> tuple[str, ...]:
    given = {"image": (_IMAGE,)} | ({"caption": reading.columns["caption"]} if "caption" in reading.columns else {})
    return find_columns([_IMAGE, *names], given, where).captions


def _row(texts: dict[str, bytes], reading: Reading) -> dict[str, Any]:
    captions: list[str] = []
    for suffix in (".txt", ".caption"):
        if suffix in texts:
            captions += split_captions(decode_text(texts[suffix]), bool(reading.many_lines))
    row: dict[str, Any] = {}
    if ".json" in texts:
        row = loads(decode_text(texts[".json"]))
        if not isinstance(row, dict):
            raise ValueError("its .json is not an object")
    return {**row, _CAPTION: captions}


def _embedded(file: Path, label: str, kept: Sequence[_Picture]) -> Embedded:
    ids = pa.array([f"{label}!{picture.name}" for picture in kept], pa.large_string())
    inside = np.ones(len(kept), dtype=bool)
    if kept and kept[0].lmdb_key is not None:
        keys = pa.array([picture.lmdb_key for picture in kept], pa.binary())
        return Embedded(file=file, inside=inside, ids=ids, keys=keys)
    offsets = np.array([picture.offset for picture in kept], dtype=np.int64)
    sizes = np.array([picture.size for picture in kept], dtype=np.int64)
    return Embedded(file=file, inside=inside, ids=ids, offsets=offsets, sizes=sizes)
