"""JSON and JSON lines as documents: only changed rows are written again, with their other values."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calotype.editing.document import Document, Entry, find_entries
from calotype.errors import EditError, ManifestError
from calotype.manifest.captions import BOM, may_be_utf8
from calotype.manifest.readers.json_files import decoded_lines, open_form, row_problem, with_text
from calotype.manifest.readers.json_forms import JsonForm
from calotype.manifest.reading import Reading
from calotype.manifest.tables.columns import Columns, find_columns
from calotype.manifest.tables.values import encodable, table_of

__all__ = ["JsonLines", "open_json"]


def open_json(file: Path, reading: Reading) -> Document:
    """Open the document of a `.json` or `.jsonl` file of any form.

    Raises:
        ManifestError: It can't be read.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ManifestError(f"{file}: can't be read: {error.strerror}") from error
    if not may_be_utf8(data):
        raise EditError(f"{file}: captions are changed in UTF-8 files, which this is not; save the file as UTF-8")
    found = open_form(file, reading) if data.removeprefix(BOM).strip() else None
    return JsonLines(file, data, reading) if found is None else JsonTree(file, data, reading, *found)


@dataclass(slots=True, eq=False)
class _Row:
    """One row, and whether it has been changed."""

    value: Any
    changed: bool = False


class _JsonDocument(Document):
    """Base of both forms: rows are objects, and captions are texts or lists of texts in them."""

    def _read(
        self,
        file: Path,
        rows: list[_Row],
        reading: Reading,
        where: Callable[[int], str],
        given: dict[str, tuple[str, ...] | None],
    ) -> None:
        self.file, self._rows = file, rows
        objects = [row.value for row in rows if isinstance(row.value, dict)]
        names = list(dict.fromkeys(name for value in objects for name in value))
        self.entries = []
        if not objects:
            self._columns = Columns(image="file_name", captions=("text",), rejected="rejected")
            return
        columns = find_columns(names, given, str(file))
        good = [row for row in rows if row_problem(row.value, columns) is None]
        if good:
            table = table_of([with_text(row.value, columns.image) for row in good], names, columns.captions)
            self.entries = find_entries(table, columns, good, file, reading, where)
        default = "text" if columns.image == "file_name" else "caption"
        self._columns = replace(
            columns, captions=columns.captions or (default,), rejected=columns.rejected or "rejected"
        )

    def set_captions(self, records: Sequence[Any], captions: Sequence[str]) -> None:
        for text in captions:
            if not encodable(text):
                raise EditError(f"{self.file}: {text!r} holds half a surrogate pair, which is no text")
        first, *others = records
        self._put(first, captions)
        for record in others:
            self._put(record, ())

    def _put(self, record: _Row, captions: Sequence[str]) -> None:
        """Set the captions of a record: one a column, and the rest as a list in the last column."""
        row = record.value
        *single, last = self._columns.captions
        values: list[tuple[str, Any]] = [
            (name, captions[index] if index < len(captions) else None) for index, name in enumerate(single)
        ]
        rest = list(captions[len(single) :])
        as_list = len(rest) > 1 or isinstance(row.get(last), list)
        values.append((last, rest if as_list else rest[0] if rest else None))
        for name, value in values:
            if isinstance(row.get(name), list) and not isinstance(value, list):
                value = [] if value is None else [value]
            if value is not None or row.get(name) is not None:
                row[name] = value
                record.changed = True

    def set_rejected(self, record: Any, rejected: bool) -> None:
        name = self._columns.rejected
        assert name is not None
        if not rejected and name not in record.value:
            return
        known = (row.value.get(name) for row in self._rows if isinstance(row.value, dict))
        other = next((value for value in known if value is not None), True)
        words = {str: ("false", "true"), bool: (False, True)}.get(type(other), (0, 1))
        record.value[name] = words[rejected]
        record.changed = True

    def _unify_types(self) -> None:
        """Make lists of all values of a column if one changed row has a list: other readers need one type a column."""
        rows = [row for row in self._rows if isinstance(row.value, dict)]
        for name in self._columns.captions:
            if any(row.changed and isinstance(row.value.get(name), list) for row in rows):
                for row in rows:
                    if isinstance(row.value.get(name), str):
                        row.value[name] = [row.value[name]]
                        row.changed = True


class JsonLines(_JsonDocument):
    """One object a line. Unchanged lines stay byte for byte, bad ones too."""

    def __init__(self, file: Path, data: bytes, reading: Reading) -> None:
        self._bom, self._reading = data.startswith(BOM), reading
        self._lines = self._rendered = io.BytesIO(data.removeprefix(BOM)).readlines()
        self._at: dict[int, _Row] = {}
        rows = []
        numbers = []
        for number, value in decoded_lines(self._lines):
            row = _Row(value)
            self._at[number - 1] = row
            rows.append(row)
            numbers.append(number)
        self._read_rows = len(rows)
        self._read(file, rows, reading, lambda row: f"{file}:{numbers[row]}", dict(reading.columns))

    def add(self, image: str) -> Any:
        row = _Row({self._columns.image: image}, changed=True)
        if self._lines and not self._lines[-1].endswith(b"\n"):
            self._lines[-1] += b"\n"
        self._at[len(self._lines)] = row
        self._lines.append(b"\n")
        self._rows.append(row)
        return row

    def settle(self) -> bool:
        if len(self._at) > self._read_rows:
            return False  # rows were added
        # Read the changed lines as a file of their own, and compare the rest with what was read before.
        changed = {index: row for index, row in self._at.items() if row.changed}
        part = JsonLines(self.file, b"".join(self._rendered[index] for index in changed), self._reading)
        if changed and part._columns != self._columns:
            return False
        new = {id(row): entry for row, entry in zip(changed.values(), part.entries, strict=False)}
        old = [entry for entry in self.entries if entry.record.changed]
        same = len(old) == len(new) == len(changed)
        if not same or any(_identity(new[id(entry.record)]) != _identity(entry) for entry in old):
            return False
        for entry in old:
            found = new[id(entry.record)]
            self.settled += bool(entry.captions) is not bool(found.captions)
            entry.captions, entry.rejected = found.captions, found.rejected
        for index, row in changed.items():
            self._lines[index] = self._rendered[index]
            row.changed = False
        return True

    def render(self) -> bytes:
        self._unify_types()
        self._rendered = lines = list(self._lines)
        for index, row in self._at.items():
            if row.changed:
                end = lines[index][len(lines[index].rstrip(b"\r\n")) :]
                lines[index] = json.dumps(row.value, ensure_ascii=False).encode("utf-8") + end
        return (BOM if self._bom else b"") + b"".join(lines)


def _identity(entry: Entry) -> tuple[str, str, bool]:
    return entry.id, entry.image, entry.explicit_id


class JsonTree(_JsonDocument):
    """A file that is one value: an array of rows, one inside an object, or an object keyed by path.

    Args:
        file: The file.
        data: Its contents.
        reading: The options.
        whole: Its value.
        form: The form of the value.

    Raises:
        EditError: Its rows are computed from several places of the file, so they can't be changed in place.
    """

    def __init__(self, file: Path, data: bytes, reading: Reading, whole: Any, form: JsonForm) -> None:
        if form.listed is None and form.keyed is None:
            raise EditError(
                f"{file}: captions in {form.name} can't be changed in place; `calotype convert {file} NEW_FOLDER --to "
                "jsonl` makes JSON lines of it, which can"
            )
        self._whole, self._form = whole, form
        text = data.removeprefix(BOM).decode("utf-8")
        indent = re.match(r"[\[{]\r?\n([ \t]+)", text.lstrip())
        self._indent = indent[1] if indent else None
        self._end = text[len(text.rstrip()) :]
        self._bom = data.startswith(BOM)
        rows = [_Row(value) for value in form.rows]
        self._read(file, rows, reading, lambda row: form.where(file, row), form.given(reading))

    def add(self, image: str) -> Any:
        row = _Row({self._columns.image: image}, changed=True)
        self._rows.append(row)
        if self._form.listed is not None:
            self._form.listed.append(row.value)
        elif self._form.keys is not None:
            self._form.keys.append(image)
        return row

    def render(self) -> bytes:
        self._unify_types()
        keyed = self._form.keyed
        if keyed is not None:
            for key, row in zip(self._form.keys or (), self._rows, strict=True):
                if row.changed:
                    keyed[key] = self._keyed(row.value, keyed.get(key))
        text = json.dumps(self._whole, ensure_ascii=False, indent=self._indent) + self._end
        return (BOM if self._bom else b"") + text.encode("utf-8")

    def _keyed(self, row: dict[str, Any], old: Any) -> Any:
        """Return the value of a row in an object keyed by path: the caption alone if there is nothing else."""
        if row is old:
            return row
        derived = {self._columns.image, *self._form.derived}
        before = old if isinstance(old, dict) else {}
        value = {name: item for name, item in row.items() if name not in derived or name in before}
        return value.get("caption") if not isinstance(old, dict) and value.keys() <= {"caption"} else value
