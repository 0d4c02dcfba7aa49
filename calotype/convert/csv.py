"""`Csv`: CSV with a header, a line for each image, several captions in numbered columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from calotype.convert.form import Finding, Images, Record, Target, column_note
from calotype.convert.jsonl import to_json
from calotype.convert.table_form import TableForm
from calotype.manifest.manifest import JSON_FIELD, Manifest

__all__ = ["Csv"]

_QUOTED = re.compile(r'[",\r\n]|^\s|\s$')


class Csv(TableForm):
    """`metadata.csv`, or a `.csv` file of any name (RFC 4180, UTF-8)."""

    name = "csv"
    table: str | None = "metadata.csv"

    def column_names(self, images: Images, captions: int) -> tuple[str, tuple[str, ...]]:
        image, (caption,) = super().column_names(images, captions)
        return image, ((caption,) if captions < 2 else tuple(f"{caption}_{number}" for number in range(captions)))

    def column(self, name: str) -> str:
        return re.sub(r'[",\s]', "_", name) or "column"

    def extra(self, value: Any) -> Any:
        return _text(value)

    def findings(self, manifest: Manifest, names: Sequence[str], captions: int) -> Iterator[Finding]:
        changed = [
            field.name
            for field in manifest.extras.schema
            if field.metadata == JSON_FIELD
            or not (pa.types.is_string(field.type) or pa.types.is_large_string(field.type))
            or manifest.extras[field.name].null_count
        ]
        return column_note("texts_only", changed, "CSV holds {} as text, and null as an empty text")

    def finish(self, target: Target, folder: Path, parts: int, records: Callable[[], Iterator[Record]]) -> None:
        assert self.table is not None
        columns = target.columns
        header: list[str] | None = None
        with (folder / self.table).open("w", encoding="utf-8", newline="") as file:
            for record in records():
                values = {columns.image: record.name} | columns.values(record.row)
                if header is None:
                    header = list(values)
                    file.write(_line(header))
                file.write(_line(map(_text, values.values())))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else to_json(value) if isinstance(value, list | dict) else str(value)


def _line(fields: Any) -> str:
    return ",".join('"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text for text in fields) + "\n"
