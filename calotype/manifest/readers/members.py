"""Reads archives whose members form samples by their names: WebDataset tar shards and LMDB environments."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from calotype.manifest.archives.lmdb_index import lmdb_index
from calotype.manifest.archives.tar_index import tar_index
from calotype.manifest.captions import decode_text, split_captions
from calotype.manifest.file_kinds import CAPTION_SUFFIXES, IMAGE_SUFFIXES
from calotype.manifest.folders.caption_files import has_several_lines, note_several_lines
from calotype.manifest.folders.json_captions import captions_in_json, join_captions, parse_json_object
from calotype.manifest.readers.member_keys import ending, match_members
from calotype.manifest.reading import Part, Reading, make_part
from calotype.manifest.tables.columns import find_columns
from calotype.manifest.tables.embedded import Embedded
from calotype.manifest.tables.rows import table_part
from calotype.manifest.tables.values import table_of
from calotype.manifest.unused_captions import UNUSED_CAPTIONS

__all__ = ["read_lmdb", "read_tar"]

_IMAGE: Final = "\0image"
"""Column name that no JSON beside an image uses."""
_CAPTION: Final = "\0caption"
_OTHER_CAPTION_SUFFIXES: Final = frozenset(
    ".tags .tag .captions .cap .text .prompt .prompts .desc .description .wd14 .blip".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class _Image:
    name: str
    """Name in the archive."""
    offset: int = 0
    size: int = 0
    lmdb_key: bytes | None = None


@dataclass(slots=True)
class _Members:
    """The members of an archive, under the names by which they are grouped."""

    images: dict[str, _Image] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    left_out: dict[tuple[str, str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    """(kind in the ledger, reason, ending of the names) → names."""

    def leave_out(self, kind: str, reason: str, names: Iterable[str]) -> None:
        """Leave members out; those of one kind and ending share a ledger entry."""
        for name in names:
            self.left_out[kind, reason, ending(name)].append(name)


def read_tar(file: Path, reading: Reading) -> Part:
    """Read a WebDataset shard; `match_members` groups the members into samples."""
    found = _Members()
    index = tar_index(file).to_pydict()
    for name, offset, size, data, kind in zip(*(index[column] for column in index), strict=True):
        folder, base = posixpath.split(name)
        if base.startswith(".") or "__MACOSX" in folder:
            continue
        suffix = posixpath.splitext(base)[1].lower()
        if kind:
            found.leave_out("unused_member", f"{kind}; only plain files are read", [name])
        elif suffix in IMAGE_SUFFIXES:
            if name in found.images:
                reading.bad(f"{file}!{name}", "this image is in the archive twice; its name must be unique")
                continue
            found.images[name] = _Image(name, offset, size)
        elif data is not None:
            if found.texts.setdefault(name, data) != data:
                reading.bad(f"{file}!{name}", "this text is in the archive twice; its name must be unique")
        elif suffix in CAPTION_SUFFIXES:
            found.leave_out(UNUSED_CAPTIONS, "a text of more than 1 MiB", [name])
        elif suffix in _OTHER_CAPTION_SUFFIXES:
            found.leave_out(
                UNUSED_CAPTIONS, "members of this kind are not read; rename them to .txt to read them", [name]
            )
        else:
            found.leave_out("unused_member", "members of this kind are not read", [name])
    return _part(file, found, reading)


_PREFIXED: Final = re.compile(r"(image|img|caption|text|label)s?([-_:/].+)")
_OTHER_PREFIX: Final = re.compile(r"[A-Za-z]+([-_:/].+)")
_COUNTS: Final = frozenset({"num-samples", "num_samples", "length", "__len__", "__keys__"})
"""Keys of the number of samples."""


def read_lmdb(path: Path, reading: Reading) -> Part:
    """Read an LMDB environment (a folder with `data.mdb`, or one file) whose values are image files and texts.

    Keys are grouped like the members of a tar. In addition, `image-1` is matched with `caption-1`, `text-1` or
    `label-1`, and an image with a bare key `a` with `a.txt`.
    """
    found = _Members()
    index = lmdb_index(path)
    for key, image, value in zip(*(index[name].to_pylist() for name in ("key", "image", "data")), strict=True):
        try:
            name = key.decode("utf-8")
        except UnicodeDecodeError:
            name = key.decode("latin-1")
        prefixed = _PREFIXED.fullmatch(name)
        if image:
            found.images[prefixed[2] if prefixed else name] = _Image(name, lmdb_key=key)
        elif value is None:
            found.leave_out("unused_member", "a value of more than 1 MiB that is no image", [name])
        elif posixpath.splitext(name)[1].lower() in CAPTION_SUFFIXES:
            found.texts[name] = value
        elif prefixed:
            found.texts[f"{prefixed[2]}.txt"] = value
        elif name not in _COUNTS:
            found.leave_out("unused_member", "neither an image nor a text by its key", [name])
    prefixed_images = {name for name, image in found.images.items() if name != image.name}
    others = [name for name in found.images if (match := _OTHER_PREFIX.fullmatch(name)) and match[1] in prefixed_images]
    _leave_out_companions(found, [name for name in others if f"{name}.txt" not in found.texts])
    return _part(path, found, reading)


def _leave_out_companions(found: _Members, names: Iterable[str]) -> None:
    names = list(names)
    reason = "not a sample: another image has its key (a mask, a control image, a further view)"
    found.leave_out("companion", reason, [found.images.pop(name).name for name in names])


def _part(file: Path, found: _Members, reading: Reading) -> Part:
    """Make rows from members. JSON beside an image becomes extra columns.

    It also provides the captions if there is no text, or if the text is the first of them.
    """
    label = reading.label(file)
    if not found.images and not found.texts and not found.left_out:
        reading.note(f"{label} is empty")
        return make_part(0, id=[], captions=[], where=lambda row: str(file))
    reading.used.add("member_key")
    samples = _samples(file, found, reading)
    if not samples:
        names = [*found.texts, *(name for names in found.left_out.values() for name in names)]
        endings = sorted({posixpath.splitext(name)[1] or name for name in names})
        reading.bad(
            str(file),
            f"no images found in it; expected members such as a.jpg with a.txt beside it, found {_some(endings)}",
        )

    # One row per sample; samples with unreadable captions are reported.
    rows: list[dict[str, Any]] = []
    images: list[_Image] = []
    several_lines: list[str] = []
    for image, texts in samples:
        try:
            rows.append(_row(texts, reading))
            if has_several_lines(rows[-1][_CAPTION]):
                several_lines.append(f"{label}!{image.name}")
        except (ValueError, TypeError) as error:
            reading.bad(f"{file}!{image.name}", f"its caption can't be read: {error}")
        else:
            images.append(image)
    note_several_lines(several_lines, reading)
    for (kind, reason, _), names in found.left_out.items():
        more = f" ({len(names):,} members like it)" if len(names) > 1 else ""
        reading.ledger.add(kind, f"{label}!{names[0]}", reason + more)

    # Captions from JSON. Keys whose values all became captions are not extra columns.
    names = list(dict.fromkeys(name for row in rows for name in row if name != _CAPTION))
    columns = find_columns([_IMAGE, _CAPTION, *names], _given(reading), str(file))
    if names:
        _require_keys(names, reading, str(file))
    caption_keys: set[str] = set()
    extra_keys: set[str] = set()
    for row in rows:
        in_json, keys = captions_in_json(row, reading)
        texts = row[_CAPTION]
        row[_CAPTION] = join_captions(texts, in_json, reading)
        caption_keys.update(keys)
        is_unused = bool(in_json) and row[_CAPTION] is texts
        extra_keys.update(name for name in row if row[name] not in (None, "", []) and (name not in keys or is_unused))
    names = [name for name in names if name in extra_keys or name not in caption_keys]
    table = table_of(rows, [_IMAGE, _CAPTION, *names], [_CAPTION])
    return table_part(
        table, file, reading, columns, lambda row: f"{file}!{images[row].name}", embedded=_embedded(file, label, images)
    )


def _samples(file: Path, found: _Members, reading: Reading) -> list[tuple[_Image, dict[str, bytes]]]:
    """Return the image of each sample, and its texts by suffix; other members go into `found.left_out`."""
    matched = match_members(list(found.images), list(found.texts), reading.member_key)
    samples = []
    for name, image in found.images.items():
        if name in matched.texts:
            texts: dict[str, str] = {}
            for text in sorted(matched.texts[name], key=lambda text: not text.startswith(f"{name}.")):
                suffix = posixpath.splitext(text)[1].lower()
                if suffix in texts:  # `a.txt` besides `a.jpg.txt`
                    matched.unused.append(text)
                else:
                    texts[suffix] = text
            samples.append((image, {suffix: found.texts[text] for suffix, text in texts.items()}))
    for key, parts in matched.unclear.items():
        reading.bad(
            f"{file}!{key}",
            f"which of its images is the sample is unclear from its members {_some(parts)}; member_key='last_dot' "
            "makes each image a sample",
        )
    _leave_out_companions(found, matched.companions)
    for name, (kind, reason) in matched.others.items():
        found.leave_out(kind, reason, [found.images[name].name])
    for doubt in matched.doubts:
        reading.note(doubt)
    found.leave_out(
        UNUSED_CAPTIONS, "not used: the sample has another caption, or parts of its key in its name", matched.unused
    )
    for name in matched.orphans:
        reading.ledger.add("no_picture", f"{reading.label(file)}!{name}", "a caption with no image beside it")
    return samples


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")


def _given(reading: Reading) -> dict[str, tuple[str, ...] | None]:
    others = {meaning: names for meaning, names in reading.columns.items() if meaning not in ("image", "caption")}
    return {**others, "image": (_IMAGE,), "caption": (_CAPTION,)}


def _require_keys(names: Sequence[str], reading: Reading, where: str) -> None:
    """Require the keys in `columns.caption`."""
    if given := reading.columns.get("caption"):
        find_columns([_IMAGE, *names], {"image": (_IMAGE,), "caption": given}, where)


def _row(texts: Mapping[str, bytes], reading: Reading) -> dict[str, Any]:
    captions: list[str] = []
    for suffix in (".txt", ".caption"):
        if suffix in texts:
            captions += split_captions(decode_text(texts[suffix]), bool(reading.many_lines))
    row: dict[str, Any] = {}
    if ".json" in texts:
        row = parse_json_object(texts[".json"])
    return {**row, _CAPTION: captions}


def _embedded(file: Path, label: str, images: Sequence[_Image]) -> Embedded:
    ids = pa.array([f"{label}!{image.name}" for image in images], pa.large_string())
    inside = np.ones(len(images), dtype=bool)
    if images and images[0].lmdb_key is not None:
        keys = pa.array([image.lmdb_key for image in images], pa.binary())
        return Embedded(file=file, inside=inside, ids=ids, keys=keys)
    offsets = np.array([image.offset for image in images], dtype=np.int64)
    sizes = np.array([image.size for image in images], dtype=np.int64)
    return Embedded(file=file, inside=inside, ids=ids, offsets=offsets, sizes=sizes)
