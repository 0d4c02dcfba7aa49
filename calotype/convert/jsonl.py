"""`JsonLines` and `ImageFolder`: `metadata.jsonl`, a JSON object for each image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from calotype.convert.columns import Columns
from calotype.convert.form import Finding, Form, Images, Record, Target, column_note
from calotype.convert.table_form import TableForm
from calotype.manifest.captions import is_text
from calotype.manifest.manifest import JSON_FIELD, Manifest

__all__ = ["ImageFolder", "JsonForm", "JsonLines", "to_json", "write_lines"]


class JsonForm(Form):
    """Base of the forms that store further columns as JSON."""

    def extra(self, value: Any) -> Any:
        return json.loads(to_json(value))

    def findings(self, manifest: Manifest, names: Sequence[str], captions: int) -> Iterator[Finding]:
        odd = [field.name for field in manifest.extras.schema if not _plain(field.type)]
        return column_note("texts_only", odd, "JSON holds {} as text: it has no dates, times, decimals and bytes")


class JsonLines(JsonForm, TableForm):
    """`metadata.jsonl`, or a `.jsonl` file of any name."""

    name = "jsonl"
    table: str | None = "metadata.jsonl"

    def finish(self, target: Target, folder: Path, parts: int, records: Callable[[], Iterator[Record]]) -> None:
        assert self.table is not None
        write_lines(folder / self.table, target.columns, records())


class ImageFolder(JsonLines):
    """Images beside `metadata.jsonl`, as `datasets.load_dataset("imagefolder", data_dir=…)` reads them."""

    name = "imagefolder"
    images: tuple[Images, ...] = ("copy", "link")

    def findings(self, manifest: Manifest, names: Sequence[str], captions: int) -> Iterator[Finding]:
        yield from super().findings(manifest, names, captions)
        mixed = [field.name for field in manifest.extras.schema if field.metadata == JSON_FIELD]
        yield from column_note("mixed_types", mixed, "{} hold values of several types, which `datasets` can't read")


def write_lines(file: Path, columns: Columns, records: Iterable[Record]) -> None:
    """Write a JSON object for each record: its image's name and its columns."""
    with file.open("w", encoding="utf-8", newline="\n") as opened:
        for record in records:
            opened.write(to_json({columns.image: record.name} | columns.values(record.row)) + "\n")


def to_json(value: Any) -> str:
    """Return JSON in one line; dates and decimals become text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _plain(type_: pa.DataType) -> bool:
    """Whether JSON has values of this type; others become text."""
    if pa.types.is_dictionary(type_):
        return _plain(type_.value_type)
    if pa.types.is_struct(type_):
        return all(_plain(field.type) for field in type_)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return _plain(type_.value_type)
    number = pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_)
    return bool(number or is_text(type_) or pa.types.is_null(type_))
