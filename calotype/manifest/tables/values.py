"""Arrow columns from Python values; values of mixed types become JSON text."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from calotype.manifest.manifest import JSON_FIELD

__all__ = ["encodable", "table_of"]


def table_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str], captions: Collection[str]) -> pa.Table:
    """Make a table of the columns `names`; missing values are null. Columns in `captions` become lists of text."""
    columns = [_column([row.get(name) for row in rows], name, many=name in captions) for name in names]
    return pa.table([values for _, values in columns], schema=pa.schema([field for field, _ in columns]))


def _column(values: list[Any], name: str, *, many: bool) -> tuple[pa.Field, pa.Array]:
    if many:
        type_ = pa.list_(pa.large_string())
        lists = [value if value is None or isinstance(value, list) else [value] for value in values]
        return pa.field(name, type_), pa.array(lists, type_)
    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError):
        texts = [None if value is None else json.dumps(value) for value in values]
        return pa.field(name, pa.large_string(), metadata=JSON_FIELD), pa.array(texts, pa.large_string())
    return pa.field(name, array.type), array


def encodable(text: str) -> bool:
    """Whether a string can be encoded as UTF-8. JSON may contain lone surrogates, which can't."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
