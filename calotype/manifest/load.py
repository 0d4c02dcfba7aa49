"""`load_manifest`: checks its options, reads, brings the parts together, and splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from calotype.errors import ConfigError, ManifestError
from calotype.ledger import Ledger
from calotype.manifest.assemble import assemble, fill_missing_captions
from calotype.manifest.exclude import parse_exclude
from calotype.manifest.folders.caption_files import parse_caption_suffix
from calotype.manifest.folders.named_splits import ALL
from calotype.manifest.manifest import Manifest
from calotype.manifest.readers.dialect import parse_delimiter
from calotype.manifest.readers.member_keys import parse_member_key
from calotype.manifest.reading import MemberKey, Reading
from calotype.manifest.sources import PathLike, Sources, absolute, find_sources, read_sources
from calotype.manifest.split_column import of_split_column
from calotype.manifest.tables.columns import ColumnMap, parse_column_map
from calotype.manifest.unused_captions import unused_captions
from calotype.manifest.validation import held_out

__all__ = ["load_manifest"]

_SIDES = ("train", "validation")


def load_manifest(
    path: PathLike | Sequence[PathLike] | None = None,
    *,
    columns: ColumnMap | None = None,
    split: str | None = None,
    root: PathLike | None = None,
    missing_captions: str = "error",
    recursive: bool = True,
    exclude: str | Sequence[str] | None = None,
    caption_lines: Literal["one", "many"] | None = None,
    caption_suffix: str | Sequence[str] | None = None,
    delimiter: str | None = None,
    member_key: MemberKey = "auto",
    validation: float = 0.0,
    validation_seed: int = 0,
    data_files: Any = None,
    image_dir: PathLike | None = None,
    column_map: ColumnMap | None = None,
    source: PathLike | Sequence[PathLike] | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    keep_rejected: bool = False,
    ledger: Ledger | None = None,
) -> Manifest:
    """What images there are and which captions they have. No image is opened.

    `docs/formats.md` lists what is read, with examples.

    Args:
        path: A folder, a data file, a glob, a list of these, or the name of a Hugging Face dataset.
        columns: What the data file calls things: `{"image": "photo", "caption": ["long", "short"], "id": …,
            "width": …, "height": …, "weight": …}`. What is not named is found by the names the field uses; None
            says that a file has no such column.
        split: Of a dataset or folder that has splits (`train`, `validation`, `test`), the one to read, or `all`. Unset,
            it is `train`. With `validation` above 0, the side of that split: `train` or `validation`.
        root: Folder that relative references of data files, and ids, are relative to; else the data file's own.
        missing_captions: What to do with images without a caption: `error`, `skip` (into the ledger), `empty`
            (an empty caption, as a trigger or template wants it), or any other text, which becomes their caption.
        recursive: Whether folders inside the folder are read too.
        exclude: Files and folders of the folder to leave out, as patterns of a `.gitignore`: `masks/`, `*.gif`,
            `a/**/b.jpg`, or a list of these. One that matches nothing is an error.
        caption_lines: Whether a caption file is `one` caption, or holds `many`, one a line. Unset, it is one, and files
            of several lines are named.
        caption_suffix: Suffix of the caption files beside images, or a list of suffixes in the order in which their
            captions come: `.tags`. By default `.txt`, `.caption` and `.json`.
        delimiter: What separates the fields of CSV and TSV files, such as `;` or `tab`; None finds it out.
        member_key: What the members of a sample share in tar and LMDB: their names up to the `first_dot` of the base
            name, as WebDataset has it, or up to the `last_dot`. `auto` takes the first, and the last where an image
            has a text by it.
        validation: Share of the images to hold out, 0 up to 1. Without `split` the training side is given.
        validation_seed: Another seed holds out others.
        data_files: As in `datasets.load_dataset`: files of the dataset, a list, or a mapping split → files.
        image_dir: Another name for `root`.
        column_map: Another name for `columns`.
        source: Another name for `path`; may be `json`, `csv`, `parquet`, … with `data_files`.
        on_error: What to do with a bad row: `raise`, or `skip` it with a ledger entry.
        keep_rejected: Also give the rows that a column `rejected` leaves out, as whoever reviews them wants it.
        ledger: Where what is left out is listed; a new one by default.

    Raises:
        ConfigError: The options contradict each other or have wrong values.
        ManifestError: A file or row can't be read; the message has file and line.
        MissingCaptionError: Images have no caption and `missing_captions` is `error`.
        MissingDependencyError: An optional package (`datasets`, `lmdb`) is needed for this format.
    """
    path = _one_of("path", path, "source", source)
    root = _one_of("root", root, "image_dir", image_dir)
    option = "columns" if columns is not None else "column_map"
    columns = _one_of("columns", columns, "column_map", column_map)
    if path is None:
        raise ConfigError("load_manifest: path is missing: give a folder, a data file, or a dataset's name")
    if caption_lines is not None:
        _choice("caption_lines", caption_lines, ("one", "many"))
    _choice("on_error", on_error, ("raise", "skip"))
    if not isinstance(missing_captions, str) or not missing_captions:
        raise ConfigError(
            f"missing_captions: found {missing_captions!r}; expected 'error', 'skip', 'empty' or the text of a caption"
        )
    if isinstance(validation, bool) or not 0 <= validation < 1:
        raise ConfigError(f"validation: found {validation!r}; expected a share of the images, 0 up to (not with) 1")
    if validation and split is not None:
        _choice("split (with validation)", split, _SIDES)
    sources = find_sources(path, data_files, None if validation else split)
    image_root = absolute(root) if root is not None else None
    if image_root is not None and not image_root.is_dir():
        raise ConfigError(f"root: there is no folder {image_root}")
    reading = Reading(
        root=image_root or sources.root,
        home=sources.root,
        image_root=image_root,
        columns=parse_column_map(columns, option),
        need_captions=missing_captions == "error",
        recursive=recursive,
        exclude=parse_exclude(exclude),
        many_lines=None if caption_lines is None else caption_lines == "many",
        caption_suffixes=parse_caption_suffix(caption_suffix),
        delimiter=parse_delimiter(delimiter),
        member_key=parse_member_key(member_key),
        split=None if validation else split,
        skip=on_error == "skip",
        keep_rejected=keep_rejected,
        ledger=ledger if ledger is not None else Ledger(),
    )
    if reading.exclude and not (sources.folders or sources.images):
        raise ConfigError(
            f"exclude: is for folders and lists of files, and {sources} is neither; a column `rejected` leaves out rows"
        )
    parts, formats = read_sources(sources, reading)
    for pattern in reading.exclude.unmatched():
        reading.bad(f"exclude={pattern!r}", f"nothing in {sources} matches this pattern; mend or remove it")
    if delimiter is not None and "delimiter" not in reading.used:
        raise ConfigError(f"delimiter: {sources} holds no CSV or TSV that it could have an effect on; remove it")
    if caption_suffix is not None and "caption_suffix" not in reading.used:
        raise ConfigError(f"caption_suffix: {sources} is no folder of images, so the option has no effect")
    if member_key != "auto" and "member_key" not in reading.used:
        raise ConfigError(f"member_key: {sources} holds no tar or LMDB that it could have an effect on; remove it")
    if not sum(part.table.num_rows for part in parts):
        raise ManifestError(_nothing(sources, reading))
    table, where = assemble(parts, reading)
    del parts
    table, where = of_split_column(table, where, reading)
    if reading.split not in (None, "train", ALL) and sources.files and not data_files and "split" not in reading.used:
        raise ConfigError(
            f"split: {sources} has no split {split!r}; for a held-out part use validation=0.05 and split='validation'"
        )
    table = fill_missing_captions(table, where, missing_captions, reading)
    about: dict[str, Any] = {"format": ", ".join(dict.fromkeys(formats)), "notes": reading.notes}
    if validation:
        table = _side(table, reading.root, validation, validation_seed, split or "train", about)
    if not len(table):
        unused = "".join(f". {sentence}" for sentence in unused_captions(reading)[:3])
        raise ManifestError(f"{sources}: every row was left out: {reading.ledger.counts()}; see the ledger{unused}")
    manifest = Manifest(table, root=reading.root, about=about, ledger=reading.ledger)
    del table
    pa.default_memory_pool().release_unused()  # what parsing took, and would keep for the life of a training run
    return manifest


def _one_of(name: str, value: Any, other_name: str, other: Any) -> Any:
    if value is not None and other is not None:
        raise ConfigError(f"{name} and {other_name} mean the same; give one of them (found {value!r} and {other!r})")
    return value if value is not None else other


def _choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}: found {value!r}; expected {' or '.join(map(repr, choices))}")


def _nothing(sources: Sources, reading: Reading) -> str:
    if len(reading.ledger):
        first = next(iter(reading.ledger))
        return f"{sources}: no row is left: {reading.ledger.counts()}. The first is {first.id}: {first.reason}"
    deeper = "" if reading.recursive else " (recursive=False: folders inside it were not looked into)"
    if reading.notes:
        return f"{sources}: no images found: {'; '.join(reading.notes)}"
    return f"{sources}: no images found{deeper}; expected images, or a data file that lists them (docs/formats.md)"


def _side(table: pa.Table, root: Path, validation: float, seed: int, side: str, about: dict[str, Any]) -> pa.Table:
    out = held_out(table, root, validation, seed)
    about["validation"] = {"side": side, "train": int((~out).sum()), "validation": int(out.sum())}
    if not (out if side == "validation" else ~out).any():
        raise ManifestError(
            f"validation={validation} of {len(table)} images leaves none for split={side!r} (the side of each "
            "image follows from its content): use another share, or another validation_seed"
        )
    return table.take(pa.array(np.flatnonzero(out if side == "validation" else ~out)))
