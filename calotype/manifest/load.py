"""`load_manifest`: checks its options, reads, joins the parts into one table, and splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from calotype.errors import ConfigError, ManifestError
from calotype.ledger import Ledger
from calotype.manifest.assemble import assemble, fill_missing_captions
from calotype.manifest.folders.named_splits import ALL
from calotype.manifest.manifest import Manifest
from calotype.manifest.options import one_of, parse_choice, parse_options
from calotype.manifest.paths import PathLike
from calotype.manifest.reading import MemberKey, Reading
from calotype.manifest.sources import Sources, find_sources, read_sources
from calotype.manifest.split_column import select_split
from calotype.manifest.tables.columns import ColumnMap
from calotype.manifest.unused_captions import unused_captions
from calotype.manifest.validation import held_out

__all__ = ["load_manifest"]

_SIDES: Final = ("train", "validation")


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
    """Read which images a dataset has, and their captions. No image is opened.

    `docs/formats.md` lists the formats, with examples.

    Args:
        path: A folder, a data file, a glob, a list of these, or the name of a Hugging Face dataset.
        columns: Meaning → column of the data file: `{"image": "photo", "caption": ["long", "short"], "id": …,
            "width": …, "height": …, "weight": …}`. Others are found by their usual names; None: there is no such
            column.
        split: The split to read of a dataset or folder that has splits (`train`, `validation`, `test`), or `all`.
            Default: `train`. With `validation` above 0, the side of that split: `train` or `validation`.
        root: Folder that references in data files, and ids, are relative to. Default: the data file's own.
        missing_captions: For images without a caption: `error`, `skip` (enter them into the ledger), `empty` (an
            empty caption, for a trigger or template), or any other text, which becomes their caption.
        recursive: Whether folders inside the folder are read too.
        exclude: Files and folders of the folder to leave out, as patterns of a `.gitignore`: `masks/`, `*.gif`,
            `a/**/b.jpg`, or a list of these. A pattern that matches nothing is an error.
        caption_lines: Whether a caption file is `one` caption, or has `many`, one per line. Default: `one`, and files
            of several lines are reported.
        caption_suffix: Suffix of the caption files beside images, or a list of suffixes in the order in which their
            captions come: `.tags`. Default: `.txt`, `.caption` and `.json`.
        delimiter: Delimiter of CSV and TSV files, such as `;` or `tab`. Default: detected.
        member_key: The key that the members of a sample share in tar and LMDB: their names up to the `first_dot` of
            the base name, as in WebDataset, or up to the `last_dot`. `auto`: the first dot, or the last dot if that
            matches an image with its text.
        validation: Share of the images to hold out, 0 up to 1 (exclusive). Without `split` the training side is
            returned.
        validation_seed: Seed of the selection of these images.
        data_files: As in `datasets.load_dataset`: files of the dataset, a list, or a mapping split → files.
        image_dir: Another name for `root`.
        column_map: Another name for `columns`.
        source: Another name for `path`; may be `json`, `csv`, `parquet`, … with `data_files`.
        on_error: For a bad row: `raise` an error, or `skip` it with a ledger entry.
        keep_rejected: Also return the rows that a column `rejected` leaves out, for a review.
        ledger: Gets an entry for everything that is left out. Default: a new ledger.

    Raises:
        ConfigError: The options contradict each other or have wrong values.
        ManifestError: A file or row can't be read; the message has the file and line.
        MissingCaptionError: Images have no caption and `missing_captions` is `error`.
        MissingDependencyError: An optional package (`datasets`, `lmdb`) is needed for this format.
    """
    # Check the options.
    path = one_of("path", path, "source", source)
    root = one_of("root", root, "image_dir", image_dir)
    option = "columns" if columns is not None else "column_map"
    columns = one_of("columns", columns, "column_map", column_map)
    if path is None:
        raise ConfigError("load_manifest: path is missing: give a folder, a data file, or a dataset's name")
    parse_choice("on_error", on_error, ("raise", "skip"))
    if not isinstance(missing_captions, str) or not missing_captions:
        raise ConfigError(
            f"missing_captions: found {missing_captions!r}; expected 'error', 'skip', 'empty' or the text of a caption"
        )
    if isinstance(validation, bool) or not 0 <= validation < 1:
        raise ConfigError(f"validation: found {validation!r}; expected a share of the images, 0 up to (not with) 1")
    if validation and split is not None:
        parse_choice("split (with validation)", split, _SIDES)
    sources = find_sources(path, data_files, None if validation else split)
    reading = parse_options(
        sources.root,
        columns=columns,
        columns_option=option,
        root=root,
        recursive=recursive,
        exclude=exclude,
        caption_lines=caption_lines,
        caption_suffix=caption_suffix,
        delimiter=delimiter,
        member_key=member_key,
        need_captions=missing_captions == "error",
        split=None if validation else split,
        skip=on_error == "skip",
        keep_rejected=keep_rejected,
        ledger=ledger if ledger is not None else Ledger(),
    )
    if reading.exclude and not (sources.folders or sources.images):
        raise ConfigError(
            f"exclude: is for folders and lists of files, and {sources} is neither; a column `rejected` leaves out rows"
        )
    if not recursive and not sources.folders:
        raise ConfigError(f"recursive: has no effect on {sources}, which is no folder; leave it out")

    # Read, then check that each option had an effect.
    parts, formats = read_sources(sources, reading)
    for pattern in reading.exclude.unmatched():
        reading.bad(f"exclude={pattern!r}", f"nothing in {sources} matches this pattern; correct or remove it")
    if delimiter is not None and "delimiter" not in reading.used:
        raise ConfigError(f"delimiter: {sources} holds no CSV or TSV that it could have an effect on; remove it")
    if caption_suffix is not None and "caption_suffix" not in reading.used:
        raise ConfigError(f"caption_suffix: {sources} is no folder of images, so the option has no effect")
    if member_key != "auto" and "member_key" not in reading.used:
        raise ConfigError(f"member_key: {sources} holds no tar or LMDB that it could have an effect on; remove it")
    if not sum(part.table.num_rows for part in parts):
        raise ManifestError(_nothing_found(sources, reading))

    # Join the parts, select the split and fill in missing captions.
    table, where = assemble(parts, reading)
    del parts
    table, where = select_split(table, where, reading)
    if reading.split not in (None, "train", ALL) and sources.files and not data_files and "split" not in reading.used:
        raise ConfigError(
            f"split: {sources} has no split {split!r}; for a held-out part use validation=0.05 and split='validation'"
        )
    table = fill_missing_captions(table, where, missing_captions, reading)
    about: dict[str, Any] = {"format": ", ".join(dict.fromkeys(formats)), "notes": reading.notes}
    if validation:
        side = split or "train"
        table = _select_side(table, reading.root, validation, validation_seed, side, about)
    if not len(table):
        unused = "".join(f". {sentence}" for sentence in unused_captions(reading)[:3])
        raise ManifestError(f"{sources}: every row was left out: {reading.ledger.counts()}; see the ledger{unused}")
    manifest = Manifest(table, root=reading.root, about=about, ledger=reading.ledger)
    del table
    pa.default_memory_pool().release_unused()  # memory of the parsers would stay allocated during training
    return manifest


def _nothing_found(sources: Sources, reading: Reading) -> str:
    """Return the message for sources without any row."""
    if len(reading.ledger):
        first = next(iter(reading.ledger))
        return f"{sources}: no row is left: {reading.ledger.counts()}. The first is {first.id}: {first.reason}"
    deeper = "" if reading.recursive else " (recursive=False: folders inside it were not looked into)"
    if reading.notes:
        return f"{sources}: no images found: {'; '.join(reading.notes)}"
    return f"{sources}: no images found{deeper}; expected images, or a data file that lists them (docs/formats.md)"


def _select_side(
    table: pa.Table, root: Path, validation: float, seed: int, side: str, about: dict[str, Any]
) -> pa.Table:
    out = held_out(table, root, validation, seed)
    about["validation"] = {"side": side, "train": int((~out).sum()), "validation": int(out.sum())}
    if not (out if side == "validation" else ~out).any():
        raise ManifestError(
            f"validation={validation} of {len(table)} images leaves none for split={side!r} (the side of each "
            "image follows from its content): use another share, or another validation_seed"
        )
    return table.take(pa.array(np.flatnonzero(out if side == "validation" else ~out)))
