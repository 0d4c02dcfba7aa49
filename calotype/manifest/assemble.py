"""From parts to one table: rows of one image come together, ids stay unique, captions are seen to."""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calotype.errors import MissingCaptionError
from calotype.manifest.captions import list_array
from calotype.manifest.manifest import EXTRA, JSON_FIELD
from calotype.manifest.reading import Part, Reading
from calotype.manifest.unused_captions import unused_captions

__all__ = ["assemble", "fill_missing_captions"]

_Where = Callable[[int], str]


def assemble(parts: Sequence[Part], reading: Reading) -> tuple[pa.Table, _Where]:
    """One table of all parts, one row an image, in the order in which they came.

    Returns:
        The table, and a function from its row number to `file:line`.
    """
    starts = np.cumsum([0, *(part.table.num_rows for part in parts)])
    table = _concat([part.table for part in parts])

    def where(place: int) -> str:
        part = parts[bisect.bisect_right(starts, place) - 1]
        return part.where(part.table["_row"][place - int(starts[bisect.bisect_right(starts, place) - 1])].as_py())

    explicit = np.repeat([part.explicit_ids for part in parts], np.diff(starts))
    kept = np.arange(len(table))
    rejected = _rejected(table)
    if pc.count_distinct(table["id"]).as_py() != len(table):
        table, kept = _merge(table, explicit, where, reading)
    if len(rejected) and not reading.keep_rejected:
        out = np.asarray(pc.is_in(table["id"], value_set=rejected))
        for name in table["id"].filter(pa.array(out)).to_pylist():
            reading.ledger.add("rejected", name, "marked as rejected")
        table, kept = table.filter(pa.array(~out)), kept[~out]
    return table.drop_columns(["_row", "rejected"]), lambda row: where(int(kept[row]))


def _rejected(table: pa.Table) -> pa.Array:
    """The ids of the images that any row marks as rejected."""
    if pa.types.is_null(table["rejected"].type):
        return pa.array([], pa.large_string())
    return pc.unique(table["id"].filter(pc.fill_null(table["rejected"], False)))


def _concat(tables: Sequence[pa.Table]) -> pa.Table:
    """All rows; an extra column whose types disagree between files is kept as JSON text."""
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
    place = table.column_names.index(name)
    field = table.schema.field(place)
    if field.metadata == JSON_FIELD:
        return table
    texts = [None if value is None else json.dumps(value, default=str) for value in table[name].to_pylist()]
    field = pa.field(name, pa.large_string(), metadata=JSON_FIELD)
    return table.set_column(place, field, pa.array(texts, pa.large_string()))


def _merge(table: pa.Table, explicit: np.ndarray, where: _Where, reading: Reading) -> tuple[pa.Table, np.ndarray]:
    """Rows with one id become one: the first row's columns, all rows' captions in order."""
    codes = table["id"].combine_chunks().dictionary_encode()
    group = (codes.indices if isinstance(codes, pa.DictionaryArray) else codes.combine_chunks().indices).to_numpy()
    first = np.full(int(group.max()) + 1, -1, dtype=np.int64)
    first[group[::-1]] = np.arange(len(group))[::-1]  # the earliest row of each group is written last
    again = np.flatnonzero(first[group] != np.arange(len(group)))
    drop: list[int] = []
    # Ids that come from references are equal only for one image; those of a column can be wrong.
    doubtful = again[explicit[again] | explicit[first[group[again]]]]
    places = [table[name] for name in ("offset", "size", "key") if not pa.types.is_null(table[name].type)]
    if not pa.types.is_null(table["ref"].type):
        places.append(pc.coalesce(table["ref"], table["id"]))
    twins = first[group[doubtful]]
    differs = np.zeros(len(doubtful), dtype=bool)
    for column in places:
        here, there = column.take(pa.array(doubtful)), column.take(pa.array(twins))
        same = pc.or_(pc.fill_null(pc.equal(here, there), False), pc.and_(pc.is_null(here), pc.is_null(there)))
        differs |= ~np.asarray(same)
    for row, twin in zip(doubtful[differs].tolist(), twins[differs].tolist(), strict=True):
        reading.bad(
            where(row),
            f"the id {table['id'][row].as_py()!r} is already that of another image, at {where(twin)}; ids must be "
            "unique. columns={'id': None} takes the images' paths instead",
            kind="duplicate_id",
        )
        drop.append(row)
    captions = table["captions"].combine_chunks()
    owner = pc.list_parent_indices(captions).to_numpy()
    texts = pc.list_flatten(captions)
    if drop:
        stays = ~np.isin(owner, drop)
        owner, texts = owner[stays], texts.filter(pa.array(stays))
    owner = group[owner]
    order = np.argsort(owner, kind="stable")
    joined = list_array(owner[order], texts.take(pa.array(order)), len(first))
    merged = table.take(pa.array(first))
    place = table.column_names.index("captions")
    merged = merged.set_column(place, "captions", joined)
    return merged, first


def fill_missing_captions(table: pa.Table, where: _Where, missing: str, reading: Reading) -> pa.Table:
    """Sees to the rows without any caption.

    Raises:
        MissingCaptionError: There are some, and `missing` is `"error"`.
    """
    lengths = pc.list_value_length(table["captions"]).to_numpy()
    lacking = np.flatnonzero(lengths == 0)
    if not len(lacking):
        return table
    ids = table["id"]
    if missing == "error":
        few = ", ".join(repr(ids[int(row)].as_py()) for row in lacking[:5])
        more = f" and {len(lacking) - 5:,} more" if len(lacking) > 5 else ""
        seen = unused_captions(reading)
        reasons = {entry.reason for entry in reading.ledger}
        notes = [note for note in reading.notes if not any(reason in note for reason in reasons)]
        raise MissingCaptionError(
            f"{len(lacking):,} of {len(table):,} images have no caption: {few}{more} (the first: "
            f"{where(int(lacking[0]))}). "
            + (f"Found and not used: {'; '.join(seen[:5])}{'; …' if len(seen) > 5 else ''}. " if seen else "")
            + "Ways out: put the caption of a.jpg into a.txt beside it; or say what to do with missing_captions='skip' "
            "(leave them out), 'empty' (an empty caption, right when a trigger or template makes the text) or any "
            "other text (the caption of them all)" + "".join(f". note: {note}" for note in notes)
        )
    if missing == "skip":
        for row in lacking:
            reading.ledger.add("no_caption", ids[int(row)].as_py(), f"no caption ({where(int(row))})")
        return table.filter(pa.array(lengths > 0))
    text = "" if missing == "empty" else missing
    filled = np.maximum(lengths, 1)
    offsets = np.concatenate([[0], np.cumsum(filled)]).astype(np.int32)
    old = pc.list_flatten(table["captions"].combine_chunks())
    source = np.full(int(offsets[-1]), len(old), dtype=np.int64)
    lacks = np.zeros(len(source), dtype=bool)
    lacks[offsets[:-1][lengths == 0]] = True
    source[~lacks] = np.arange(len(old))
    values = pa.concat_arrays([old, pa.array([text], pa.large_string())]).take(pa.array(source))
    place = table.column_names.index("captions")
    return table.set_column(place, "captions", pa.ListArray.from_arrays(pa.array(offsets), values))
