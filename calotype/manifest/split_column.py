"""Selects the rows of the requested split by a column that names the split of each row."""

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

__all__ = ["select_split"]

_NAMES: Final = ("split", "subset", "partition", "set", "phase", "fold", "data_split", "dataset_split", "split_name")


def select_split(
    table: pa.Table, where: Callable[[int], str], reading: Reading
) -> tuple[pa.Table, Callable[[int], str]]:
    """Select the rows of the requested split, if a column names the splits.

    Without `reading.split` that is `train`, as for folders. A column with any other word is an ordinary
    column.

    Args:
        table: All rows.
        where: Row number → `file:line`.
        reading: The options.

    Returns:
        The rows, and the function from their numbers to `file:line`.

    Raises:
        ManifestError: No row has the split; or there are several splits, none of them `train`, and none is requested.
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
        reading.note(f"{DEFAULT_SPLIT_NOTE} of {listed} by the column {name!r}; split='{ALL}' reads all")
    for row in (row for row, split in enumerate(of_row) if split is None):
        reason = f"in no split by the column {name!r}, of whose splits {wanted} was read; split='{ALL}' reads all"
        reading.ledger.add("no_split", where(row), reason)
    rows = np.flatnonzero([split == wanted for split in of_row])
    return table.take(pa.array(rows)), lambda row: where(int(rows[row]))


def _column(table: pa.Table) -> tuple[str, list[str | None]] | None:
    """Return the name of the column and the split of each row; None without such a column."""
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
