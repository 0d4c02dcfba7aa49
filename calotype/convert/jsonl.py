"""JSON lines: one object an image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from calotype.convert.form import Finding, Form, Record, Target
from calotype.convert.tables import TableForm
from calotype.manifest.manifest import Manifest

__all__ = ["JsonForm", "JsonLines", "json_value", "odd_types", "to_json"]


class JsonForm(Form):
    """What the forms share that keep the data's own columns as JSON."""

    def extra(self, value: Any) -> Any:
        return json_value(value)

    def findings(self, manifest: Manifest, names: Sequence[str], captions: int) -> Iterator[Finding]:
        return odd_types(manifest)


class JsonLines(JsonForm, TableForm):
    """`metadata.jsonl`, or a `.jsonl` file of any name."""

    name = "jsonl"
    table: str | None = "metadata.jsonl"

    def finish(self, target: Target, folder: Path, parts: int, records: Callable[[], Iterator[Record]]) -> None:
        assert self.table is not None
        columns = target.columns
        with (folder / self.table).open("w", encoding="utf-8", newline="\n") as file:
            for record in records():
                file.write(to_json({columns.image: record.name} | columns.values(record.row)) + "\n")


def to_json(value: Any) -> str:
    """JSON in one line; what JSON has no word for (dates, decimals) as text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def json_value(value: Any) -> Any:
    """What a value is after a way through JSON."""
    return json.loads(to_json(value))


def odd_types(manifest: Manifest) -> Iterator[Finding]:
    """Columns that JSON can hold as text only."""
    odd = [field.name for field in manifest.extras.schema if not _plain(field.type)]
    if odd:
        yield Finding(
            level="note",
            kind="texts_only",
            count=len(odd),
            text=f"JSON holds {', '.join(map(repr, odd))} as text: dates, times, decimals and bytes have no form in it",
        )


def _plain(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _plain(type_.value_type)
    if pa.types.is_struct(type_):
        return all(_plain(field.type) for field in type_)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return _plain(type_.value_type)
    number = pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_)
    text = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
    return bool(number or text or pa.types.is_null(type_))
