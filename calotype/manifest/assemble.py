"""Joins parts into one table: rows of one image are merged, ids are unique, missing captions are filled."""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calotype.errors import MissingCaptionError
from calotype.manifest.captions import list_array
from calotype.manifest.manifest import EXTRA, JSON_FIELD, image_paths, set_column
from calotype.manifest.reading import Part, Reading
from calotype.manifest.unused_captions import unused_captions

__all__ = ["assemble", "fill_missing_captions"]

_Where = Callable[[int], str]


def assemble(parts: Sequence[Part], reading: Reading) -> tuple[pa.Table, _Where]:
    """Join parts into one table with one row per image, in their order.

    Args:
        parts: What the readers returned.
        reading: The options; duplicate ids and rejected rows are reported to it.

    Returns:
        The table, and a function from its row number to `file:line`.
    """
    starts = np.cumsum([0, *(part.table.num_rows for part in parts)])
    table = _concat([part.table for part in parts])

    def where(row: int) -> str:
        number = bisect.bisect_right(starts, row) - 1
        return parts[number].where(parts[number].table["_row"][row - int(starts[number])].as_py())

    explicit = np.repeat([part.explicit_ids for part in parts], np.diff(starts))
    rows = np.arange(len(table))  # of the joined table, as `where` numbers them
    rejected = _rejected(table)
    if pc.count_distinct(table["id"]).as_py() != len(table):
        table, rows = _merge(table, explicit, where, reading)
    if len(rejected) and not reading.keep_rejected:
        out = np.asarray(pc.is_in(table["id"], value_set=rejected))
        for name in table["id"].filter(pa.array(out)).to_pylist():
            reading.ledger.add("rejected", name, "marked as rejected")
        table, rows = table.filter(pa.array(~out)), rows[~out]
    return table.drop_columns(["_row", "rejected"]), lambda row: where(int(rows[row]))


def _rejected(table: pa.Table) -> pa.Array:
    """Return the ids of the images that any row marks as rejected."""
    if pa.types.is_null(table["rejected"].type):
        return pa.array([], pa.large_string())
    return pc.unique(table["id"].filter(pc.fill_null(table["rejected"], False)))


def _concat(tables: Sequence[pa.Table]) -> pa.Table:
    """Concatenate tables; an extra column whose types differ between files becomes JSON text."""
    if len(tables) == 1:
        return tables[0]
    types: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            if field.name.startswith(EXTRA) and not pa.types.is_null(field.type):
                types.setdefault(field.name, set()).add(pa.int8() if field.metadata == JSON_FIELD else field.type)
    for name, several in types.items():
        if len(several) > 1:
            tables = [_as_json(table, name) if name in table.column_names else table for table in tables]
    merged = pa.concat_tables(tables, promote_options="permissive")
    fields = {field.name: field for table in tables for field in table.schema if field.metadata}
    return pa.table(merged.columns, schema=pa.schema([fields.get(field.name, field) for field in merged.schema]))


def _as_json(table: pa.Table, name: str) -> pa.Table:
    if table.schema.field(name).metadata == JSON_FIELD:
        return table
    texts = [None if value is None else json.dumps(value, default=str) for value in table[name].to_pylist()]
    return set_column(table, name, pa.array(texts, pa.large_string()), JSON_FIELD)


def _merge(table: pa.Table, explicit: np.ndarray, where: _Where, reading: Reading) -> tuple[pa.Table, np.ndarray]:
    """Merge rows with one id: the first row's columns, and all rows' captions in order.

    Returns:
        The merged table, and the row that each of its rows has in `table`.
    """
    # Number the groups of rows with one id, and find the first row of each.
    codes = table["id"].combine_chunks().dictionary_encode()
    group = (codes.indices if isinstance(codes, pa.DictionaryArray) else codes.combine_chunks().indices).to_numpy()
    first = np.full(int(group.max()) + 1, -1, dtype=np.int64)
    first[group[::-1]] = np.arange(len(group))[::-1]  # reversed: the earliest row is written last
    repeated = np.flatnonzero(first[group] != np.arange(len(group)))
    # Equal ids of two images: an error. Ids made from references are equal for one image only; a column's may not be.
    drop: list[int] = []
    doubtful = repeated[explicit[repeated] | explicit[first[group[repeated]]]]
    locations = [table[name] for name in ("offset", "size", "key") if not pa.types.is_null(table[name].type)]
    if not pa.types.is_null(table["ref"].type):
        locations.append(image_paths(table))
    owners = first[group[doubtful]]
    differs = np.zeros(len(doubtful), dtype=bool)
    for column in locations:
        here, there = column.take(pa.array(doubtful)), column.take(pa.array(owners))
        same = pc.or_(pc.fill_null(pc.equal(here, there), False), pc.and_(pc.is_null(here), pc.is_null(there)))
        differs |= ~np.asarray(same)
    for row, owner in zip(doubtful[differs].tolist(), owners[differs].tolist(), strict=True):
        reading.bad(
            where(row),
            f"the id {table['id'][row].as_py()!r} is already that of another image, at {where(owner)}; ids must be "
            "unique. columns={'id': None} uses the images' paths instead",
            kind="duplicate_id",
        )
        drop.append(row)
    # Collect the captions of each group.
    captions = table["captions"].combine_chunks()
    parents = pc.list_parent_indices(captions).to_numpy()
    texts = pc.list_flatten(captions)
    if drop:
        keep = ~np.isin(parents, drop)
        parents, texts = parents[keep], texts.filter(pa.array(keep))
    parents = group[parents]
    order = np.argsort(parents, kind="stable")
    joined = list_array(parents[order], texts.take(pa.array(order)), len(first))
    return set_column(table.take(pa.array(first)), "captions", joined), first


def fill_missing_captions(table: pa.Table, where: _Where, missing: str, reading: Reading) -> pa.Table:
    """Apply the option `missing_captions` to the rows without a caption.

    Args:
        table: All rows.
        where: Row number → `file:line`.
        missing: `error`, `skip`, `empty`, or the text that becomes their caption.
        reading: The options; skipped rows are reported to it.

    Raises:
        MissingCaptionError: There are such rows, and `missing` is `error`.
    """
    lengths = pc.list_value_length(table["captions"]).to_numpy()
    lacking = np.flatnonzero(lengths == 0)
    if not len(lacking):
        return table
    ids = table["id"]
    if missing == "error":
        few = ", ".join(repr(ids[int(row)].as_py()) for row in lacking[:5])
        more = f" and {len(lacking) - 5:,} more" if len(lacking) > 5 else ""
        unused = unused_captions(reading)
        reasons = {entry.reason for entry in reading.ledger}
        notes = [note for note in reading.notes if not any(reason in note for reason in reasons)]
        raise MissingCaptionError(
            f"{len(lacking):,} of {len(table):,} images have no caption: {few}{more} (the first: "
            f"{where(int(lacking[0]))}). "
            + (f"Found and not used: {'; '.join(unused[:5])}{'; …' if len(unused) > 5 else ''}. " if unused else "")
            + "To fix it, put the caption of a.jpg into a.txt beside it; or set missing_captions='skip' "
            "(leave them out), 'empty' (an empty caption, right when a trigger or template makes the text) or any "
            "other text (the caption of them all)" + "".join(f". note: {note}" for note in notes)
        )
    if missing == "skip":
        for row in lacking:
            reading.ledger.add("no_caption", ids[int(row)].as_py(), f"no caption ({where(int(row))})")
        return table.filter(pa.array(lengths > 0))
    # Insert the text into empty lists: append it to the captions of all rows, and index it.
    text = "" if missing == "empty" else missing
    filled = np.maximum(lengths, 1)
    offsets = np.concatenate([[0], np.cumsum(filled)]).astype(np.int32)
    old = pc.list_flatten(table["captions"].combine_chunks())
    source = np.full(int(offsets[-1]), len(old), dtype=np.int64)
    lacks = np.zeros(len(source), dtype=bool)
    lacks[offsets[:-1][lengths == 0]] = True
    source[~lacks] = np.arange(len(old))
    values = pa.concat_arrays([old, pa.array([text], pa.large_string())]).take(pa.array(source))
    return set_column(table, "captions", pa.ListArray.from_arrays(pa.array(offsets), values))
