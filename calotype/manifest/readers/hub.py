"""Reads Hugging Face datasets, by name or saved to disk, with the `datasets` package (extra `hub`)."""

from __future__ import annotations

import errno
import importlib.util
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from calotype.errors import ManifestError, MissingDependencyError
from calotype.manifest.cache import cached
from calotype.manifest.folders.named_splits import ALL, DEFAULT_SPLIT_NOTE
from calotype.manifest.hub_lookup import look_up_dataset
from calotype.manifest.readers.arrow_files import parse_errors
from calotype.manifest.reading import Part, Reading
from calotype.manifest.tables.columns import find_columns
from calotype.manifest.tables.embedded import Embedded, NotMappedError, embedded_in, holds_bytes, unpack
from calotype.manifest.tables.rows import table_part
from calotype.manifest.unused_captions import note_other_columns

__all__ = ["is_saved_dataset", "read_hub", "read_saved"]


def is_saved_dataset(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote this folder."""
    # `os.path` and not `Path`: False, no error, in a folder that can't be read; its reader names it.
    dictionary, state, info = (
        os.path.isfile(folder / name)  # noqa: PTH113
        for name in ("dataset_dict.json", "state.json", "dataset_info.json")
    )
    return dictionary or (state and info)


def _datasets(purpose: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError("datasets", extra="hub", purpose=purpose) from None
    return datasets


def read_saved(folder: Path, reading: Reading) -> list[Part]:
    """Read a dataset saved to disk."""
    datasets = _datasets(f"to read the saved dataset {folder}")
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # errors of its JSON and Arrow files, missing fields, …
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EIO):
            raise ManifestError(f"{error.filename or folder}: can't be read: {error.strerror}") from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise ManifestError(f"{folder}: the saved dataset is damaged: {reason}; copy or save it again") from None
    with parse_errors(folder, "a saved dataset"):
        return _parts(loaded, str(folder), folder, reading)


def read_hub(name: str, data_files: Any, reading: Reading) -> list[Part]:
    """Load a dataset by name: `datasets.load_dataset(name, data_files=…, split=…)`.

    Without a connection to the hub, it is loaded from the cache of `datasets`.

    Raises:
        MissingPathError: There is neither a file nor a dataset of this name, or the hub can't be reached.
        ManifestError: It can't be loaded; the message lists what to check.
    """
    purpose = f"to load the dataset {name!r} (no file or folder has this name)"
    if importlib.util.find_spec("datasets") is None:
        _datasets(purpose)
    unreachable = not look_up_dataset(name)  # before datasets is imported, which takes seconds
    datasets = _datasets(purpose)
    offline = datasets.config.HF_HUB_OFFLINE
    try:
        datasets.config.HF_HUB_OFFLINE = offline or unreachable  # its retries take 25 s
        loaded = datasets.load_dataset(name, data_files=data_files, split=reading.split)
    except Exception as error:  # datasets, huggingface_hub, httpx and fsspec each have their own errors
        reason = " ".join(str(error).split())[:400]
        raise ManifestError(
            f"{name!r} is no file or folder here, and loading it as a Hugging Face dataset failed: "
            f"{type(error).__name__}: {reason}. Check its name, its split, your network and (for gated ones) "
            "`hf auth login`; without network, save it elsewhere with save_to_disk and pass that folder"
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
    return _parts(loaded, name, None, reading)


def _parts(loaded: Any, name: str, folder: Path | None, reading: Reading) -> list[Part]:
    """Make a part for each file of a loaded dataset.

    Args:
        loaded: A `Dataset` or `DatasetDict`.
        name: Name of the dataset, for ids and messages.
        folder: Folder of a dataset saved to disk; None for one from the hub.
        reading: The options.
    """
    # Choose the split, and find the columns.
    split = str(loaded.split) if getattr(loaded, "split", None) is not None else ""
    if isinstance(loaded, dict):
        split, loaded = _choose(loaded, name, reading)
    if not len(loaded):
        raise ManifestError(f"{name}: the dataset has no rows")
    # Ids of a saved dataset do not depend on the path of its folder.
    label = (split or "row") if folder is not None else "/".join(filter(None, (name, split)))
    columns = find_columns(loaded.column_names, reading.columns, name)
    reading.note(f"split {split!r} of the dataset {name}" if split else f"the dataset {name}")
    loaded.data.table.validate(full=True)
    schema: pa.Schema = loaded.data.table.schema
    type_ = schema.field(columns.image).type

    # The images: byte ranges of one or more files, or references.
    images: list[tuple[Embedded | None, pa.ChunkedArray]]
    if holds_bytes(type_):
        images = list(_images(loaded, type_, columns.image, label))
        wanted = [each for each in loaded.column_names if not holds_bytes(schema.field(each).type)]
    else:
        images = [(None, _rows(loaded, [columns.image])[columns.image])]
        wanted = [each for each in loaded.column_names if each != columns.image]
    rest = _rows(loaded, wanted) if wanted else pa.table({})

    # A part for each file, with its slice of the other columns.
    parts = []
    first = 0
    for embedded, paths in images:
        count = len(paths)
        table = pa.table({columns.image: paths})
        for each in wanted:
            table = table.append_column(rest.schema.field(each), rest[each].slice(first, count))
        parts.append(
            table_part(
                table,
                name,
                reading,
                columns,
                partial(_where, name, split, first),
                base=folder or reading.root,
                embedded=embedded,
                look=folder is not None or reading.image_root is not None,
            )
        )
        note_other_columns(name, parts[-1], reading)
        first += count
    return parts


def _where(name: str, split: str, first: int, row: int) -> str:
    return f"{' '.join(filter(None, (name, split)))} row {first + row}"


def _choose(splits: Any, name: str, reading: Reading) -> tuple[str, Any]:
    """Return the requested split, else the only one, else `train`; `all` concatenates them."""
    if reading.split == ALL:
        return ALL, _datasets("").concatenate_datasets(list(splits.values()))
    wanted = reading.split or (next(iter(splits)) if len(splits) == 1 else "train")
    if wanted not in splits:
        raise ManifestError(
            f"{name}: no split {wanted!r}; it has {', '.join(map(repr, splits))}: choose one with split="
        )
    others = [each for each in splits if each != wanted]
    if others and reading.split is None:
        reading.note(f"{DEFAULT_SPLIT_NOTE}; {', '.join(others)} not")
    return wanted, splits[wanted]


def _rows(loaded: Any, names: list[str]) -> pa.Table:
    """Return columns as Arrow: images are not decoded, and `select` and `shuffle` of the dataset are applied."""
    table: pa.Table = loaded.select_columns(names).with_format("arrow")[:]
    return table


def _images(loaded: Any, type_: pa.DataType, column: str, label: str) -> Iterator[tuple[Embedded, pa.ChunkedArray]]:
    """Find the images of a dataset in its own Arrow files, or in the cache if it is a selection or compressed."""
    files = [Path(file["filename"]) for file in loaded.cache_files]
    if files and loaded._indices is None:
        try:
            found = []
            first = 0
            for file in files:
                found.append(embedded_in(file, column, label, first))
                first += len(found[-1][1])
        except NotMappedError:
            first = -1
        if first == len(loaded):
            yield from found
            return

    def make() -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
        batches = loaded.select_columns([column]).with_format("arrow").iter(batch_size=256)
        return unpack(type_, (chunk for batch in batches for chunk in batch[column].chunks))

    unpacked = cached("images", files, make, note=f"{loaded._fingerprint} {column}")
    yield embedded_in(unpacked, "image", label)
