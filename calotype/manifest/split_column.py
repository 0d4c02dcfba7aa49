"""A column that names the split of each row: rows of other splits than the one to be read are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calotype.errors import ManifestError
from calotype.manifest.captions import as_texts, is_text
from calotype.manifest.folders.named_splits import ALL, DEFAULT_SPLIT_NOTE, split_named
from calotype.manifest.manifest import EXTRA
from calotype.manifest.reading import Reading

__all__ = ["of_split_column"]

_NAMES: Final = ("split", "subset", "partition", "set", "phase", "fold", "data_split", "dataset_split", "split_name")


def of_split_column(
    table: pa.Table, where: Callable[[int], str], reading: Reading
) -> tuple[pa.Table, Callable[[int], str]]:
    """The rows of the split to be read, where a column names several splits for them.

    Without `reading.split` that is `train`, as for folders. A column with any other word than a split's is a column
    like others.

    Args:
        table: All rows.
        where: Row number → `file:line`.
        reading: The options.

    Returns:
        The rows, and the function from their numbers to `file:line`.

    Raises:
        ManifestError: The column names no row of the split; or several splits, none of them `train`, and nobody chose.
    """
    if reading.split == ALL or (found := _column(table)) is None:
        return table, where
    name, of_row = found
    counts = Counter(split for split in of_row if split is not None)
    if len(counts) < 2 and reading.split is None:
        return table, where
    listed = ", ".join(f"{split} ({count:,} rows)" for split, count in counts.most_common())
    wanted = split_named(reading.split) if reading.split else "train"
    if wanted not in counts:
        raise ManifestError(f"the column {name!r} has the splits {listed}; choose one with split=, or split='{ALL}'")
    reading.used.add("split")
    if reading.split is None:
        reading.note(f"{DEFAULT_SPLIT_NOTE} of {listed} by the column {name!r}; split='{ALL}' takes all")
    for row in (row for row, split in enumerate(of_row) if split is None):
        reason = f"in no split by the column {name!r}, of whose splits {wanted} was taken; split='{ALL}' takes all"
        reading.ledger.add("no_split", where(row), reason)
    kept = np.flatnonzero([split == wanted for split in of_row])
    return table.take(pa.array(kept)), lambda row: where(int(kept[row]))


def _column(table: pa.Table) -> tuple[str, list[str | None]] | None:
    """The name of the column, and the split of each row."""
    for label in table.column_names:
        name = label.removeprefix(EXTRA)
        if label == name or name.lower() not in _NAMES or not is_text(table[label].type):
            continue
        encoded = as_texts(table[label]).combine_chunks()
        words = [word for word in pc.unique(encoded).to_pylist() if word]
        named = {word: split_named(word) for word in words}
        if words and all(named.values()):
            return name, [named.get(word) for word in encoded.to_pylist()]
    return None
