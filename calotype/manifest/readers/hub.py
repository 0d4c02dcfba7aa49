"""Hugging Face datasets, by name or saved to disk, through the `datasets` package (extra `hub`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from calotype.errors import ManifestError, MissingDependencyError
from calotype.manifest.cache import cached
from calotype.manifest.folders.named_splits import ALL, DEFAULT_SPLIT_NOTE
from calotype.manifest.readers.arrow_files import naming_damage
from calotype.manifest.reading import Part, Reading
from calotype.manifest.tables.columns import find_columns
from calotype.manifest.tables.embedded import Embedded, NotMappedError, embedded_in, holds_bytes, unpack
from calotype.manifest.tables.rows import table_part
from calotype.manifest.unused_captions import note_other_columns

__all__ = ["is_saved_dataset", "read_hub", "read_saved"]


def is_saved_dataset(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def _datasets(purpose: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError("datasets", extra="hub", purpose=purpose) from None
    return datasets


def read_saved(folder: Path, reading: Reading) -> list[Part]:
    """A dataset saved to disk."""
    datasets = _datasets(f"to read the saved dataset {folder}")
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # of its JSON and Arrow files, of fields that are missing, …
        said = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise ManifestError(f"{folder}: the saved dataset is damaged: {said}; copy or save it again") from None
    with naming_damage(folder, "a saved dataset"):
        return _parts(loaded, str(folder), folder, reading)


def read_hub(name: str, data_files: Any, reading: Reading) -> list[Part]:
    """A dataset by name: `datasets.load_dataset(name, data_files=…, split=…)`.

    Raises:
        ManifestError: It can't be had; the message says what to look at.
    """
    datasets = _datasets(f"to load the dataset {name!r} (no file or folder has this name)")
    try:
        loaded = datasets.load_dataset(name, data_files=data_files, split=reading.split)
    except Exception as error:  # datasets, huggingface_hub, httpx and fsspec each have errors of their own
        raise ManifestError(
            f"{name!r} is no file or folder here, and loading it as a Hugging Face dataset failed: "
            f"{type(error).__name__}: {str(error).strip()[:400]}\nIf you meant a local path, check its spelling. "
            "If you meant a dataset, check its name, its split, your network and (for gated ones) `hf auth login`; "
            "on a machine without network, save it elsewhere with save_to_disk and give that folder"
        ) from error
    return _parts(loaded, name, None, reading)


def _parts(loaded: Any, name: str, folder: Path | None, reading: Reading) -> list[Part]:
    split = str(loaded.split) if getattr(loaded, "split", None) is not None else ""
    if isinstance(loaded, dict):
        split, loaded = _choose(loaded, name, reading)
    if not len(loaded):
        raise ManifestError(f"{name}: the dataset has no rows")
    # Ids of a saved dataset don't depend on where its folder lies.
    label = (split or "row") if folder is not None else "/".join(filter(None, (name, split)))
    columns = find_columns(loaded.column_names, reading.columns, name)
    reading.note(f"split {split!r} of the dataset {name}" if split else f"the dataset {name}")
    loaded.data.table.validate(full=True)
    schema: pa.Schema = loaded.data.table.schema
    type_ = schema.field(columns.image).type
    placed: list[tuple[Embedded | None, pa.ChunkedArray]]
    if holds_bytes(type_):
        placed = list(_images(loaded, type_, columns.image, label))
        wanted = [each for each in loaded.column_names if not holds_bytes(schema.field(each).type)]
    else:
        placed = [(None, _rows(loaded, [columns.image])[columns.image])]
        wanted = [each for each in loaded.column_names if each != columns.image]
    rest = _rows(loaded, wanted) if wanted else pa.table({})
    parts = []
    first = 0
    for embedded, images in placed:
        count = len(images)
        table = pa.table({columns.image: images})
        for each in wanted:
            table = table.append_column(rest.schema.field(each), rest[each].slice(first, count))
        parts.append(
            table_part(
                table,
                reading,
                label=name,
                base=folder or reading.root,
                where=partial(_where, name, split, first),
                embedded=embedded,
                columns=columns,
                look=folder is not None or reading.image_root is not None,
            )
        )
        note_other_columns(name, parts[-1], reading)
        first += count
    return parts


def _where(name: str, split: str, first: int, row: int) -> str:
    return f"{' '.join(filter(None, (name, split)))} row {first + row}"


def _choose(splits: Any, name: str, reading: Reading) -> tuple[str, Any]:
    """The split that was asked for, else the only one, else `train`; `all` is all of them."""
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
    """These columns as Arrow has them: images not decoded, `select` and `shuffle` of the dataset applied."""
    table: pa.Table = loaded.select_columns(names).with_format("arrow")[:]
    return table


def _images(loaded: Any, type_: pa.DataType, column: str, label: str) -> Iterator[tuple[Embedded, pa.ChunkedArray]]:
    """The places of a dataset's images: in its own Arrow files where it is all of these, else in the cache."""
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

    holder = cached("images", files, make, note=f"{loaded._fingerprint} {column}")
    yield embedded_in(holder, "image", label)
