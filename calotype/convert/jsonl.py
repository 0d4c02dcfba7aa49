"""`JsonLines` and `ImageFolder`: `metadata.jsonl`, a JSON object for each image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from calotype.convert.form import Finding, Form, Images, Record, Target
from calotype.convert.table_form import TableForm
from calotype.manifest.manifest import JSON_FIELD, Manifest

__all__ = ["ImageFolder", "JsonForm", "JsonLines", "to_json"]


class JsonForm(Form):
    """Base of the forms that store further columns as JSON."""

    def extra(self, value: Any) -> Any:
        return json.loads(to_json(value))

    def findings(self, manifest: Manifest, names: Sequence[str], captions: int) -> Iterator[Finding]:
        return _text_columns(manifest)


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


class ImageFolder(JsonLines):
    """Images beside `metadata.jsonl`, as `datasets.load_dataset("imagefolder", data_dir=…)` reads them."""

    name = "imagefolder"
    images: tuple[Images, ...] = ("copy", "link")

    def findings(self, manifest: Manifest, names: Sequence[str], captions: int) -> Iterator[Finding]:
        yield from super().findings(manifest, names, captions)
        mixed = [field.name for field in manifest.extras.schema if field.metadata == JSON_FIELD]
        if mixed:
            yield Finding(
                level="note",
                kind="mixed_types",
                count=len(mixed),
                text=f"{', '.join(map(repr, mixed))} hold values of several types, which `datasets` can't read",
            )


def to_json(value: Any) -> str:
    """Return JSON in one line; dates and decimals become text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _text_columns(manifest: Manifest) -> Iterator[Finding]:
    """Report the columns whose values become text in JSON."""
    odd = [field.name for field in manifest.extras.schema if not _plain(field.type)]
    if odd:
        yield Finding(
            level="note",
            kind="texts_only",
            count=len(odd),
            text=f"JSON holds {', '.join(map(repr, odd))} as text: it has no dates, times, decimals and bytes",
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
