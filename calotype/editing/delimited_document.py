"""CSV and TSV as documents: changed fields are written in the file's dialect, the rest stays byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from calotype.editing.document import Document, find_entries
from calotype.errors import EditError, ManifestError
from calotype.manifest.captions import BOM
from calotype.manifest.readers.delimited import field_limit, heading_of, open_delimited, with_full_dialect
from calotype.manifest.reading import Reading
from calotype.manifest.tables.columns import find_columns

__all__ = ["DelimitedDocument"]


@dataclass(slots=True, eq=False)
class _Record:
    """A line, or several that a quoted field spans."""

    fields: list[str]
    """As written between the delimiters; the whole line if it is no row."""
    end: str
    """Its line end."""
    is_row: bool = True


class DelimitedDocument(Document):
    """A `.csv` or `.tsv` file, with or without a header.

    An image with more captions than caption columns has several rows. A missing column is added, with a header if the
    file has none.

    Raises:
        ManifestError: It can't be read.
        EditError: It is text in another encoding than UTF-8.
    """

    def __init__(self, file: Path, reading: Reading) -> None:
        self.file, self._reading = file, reading
        data = file.read_bytes()
        self._bom = data.startswith(BOM)
        try:
            self._heading, text = open_delimited(file, reading)
        except UnicodeDecodeError as error:
            raise ManifestError(f"{file}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
        if text.encode("utf-8", "surrogatepass") != data.removeprefix(BOM):
            raise EditError(f"{file}: captions are changed in UTF-8 files, which this is not; save the file as UTF-8")
        self._dialect, self._names = self._heading.dialect, list(self._heading.names)
        self._has_header, self._columns = self._heading.has_header, self._heading.columns
        self._records = list(self._split(text))
        rows = [record for record in self._records if record.is_row]
        values = [self._values(record) for record in rows]
        table = pa.table(
            [pa.array([row[column] for row in values], pa.large_string()) for column in range(len(self._names))],
            names=self._names,
        )
        self.entries = find_entries(table, self._columns, rows, file, reading, lambda row: f"{file} row {row + 1}")

    def _split(self, text: str) -> Iterator[_Record]:
        header = self._has_header
        for record in self._dialect.records(text, self._limit):
            if not record.text.strip():
                yield _Record([record.text], record.end, is_row=False)
                continue
            fields = list(record.fields)
            if len(fields) == 1 and not self._has_header:
                fields.append("")
            fits = len(fields) == len(self._names)
            yield _Record(fields if fits else [record.text], record.end, is_row=not header and fits)
            header = False

    @property
    def _limit(self) -> int | None:
        return field_limit(self._heading._replace(names=self._names, columns=self._columns))

    @property
    def _line_end(self) -> str:
        """Line end of the first line, used for new lines."""
        return self._records[0].end if self._records and self._records[0].end else self._dialect.line_end

    def _values(self, record: _Record) -> list[str]:
        return [self._dialect.value(field) for field in record.fields]

    def set_captions(self, records: Sequence[Any], captions: Sequence[str]) -> None:
        if not self._columns.captions:
            self._insert(len(self._names), "caption")
        records = list(records)
        columns = [self._names.index(name) for name in self._columns.captions]

        # Add rows for further captions, fill in all caption fields, and drop rows that are blank then.
        while len(records) * len(columns) < len(captions):
            another = replace(records[0], fields=list(records[0].fields))
            self._records.insert(self._records.index(records[-1]) + 1, another)
            if not records[-1].end:
                records[-1].end = self._line_end
                another.end = ""
            records.append(another)
        cells = [(record, column) for record in records for column in columns]
        for number, (record, column) in enumerate(cells):
            self._set(record, column, captions[number] if number < len(captions) else "")
        for record in records[1:]:
            others = [column for column in range(len(self._names)) if column not in columns]
            blank = all(not self._dialect.value(record.fields[column]).strip() for column in columns)
            if blank and all(record.fields[column] == records[0].fields[column] for column in others):
                self._records.remove(record)

    def set_rejected(self, record: Any, rejected: bool) -> None:
        if self._columns.rejected is None:
            if not rejected:
                return
            self._insert(self._names.index(self._columns.image) + 1, "rejected")
        assert self._columns.rejected is not None
        self._set(record, self._names.index(self._columns.rejected), "true" if rejected else "")

    def add(self, image: str) -> Any:
        record = _Record([""] * len(self._names), self._line_end)
        if self._records:
            self._records[-1].end = self._records[-1].end or record.end
        self._records.append(record)
        self._set(record, self._names.index(self._columns.image), image)
        return record

    def _insert(self, column: int, name: str) -> None:
        """Insert a blank column, and a header if there is none."""
        if not self._has_header:
            self._records.insert(0, _Record(list(self._names), self._line_end, is_row=False))
            self._has_header = True
        self._names.insert(column, name)
        self._columns = find_columns(self._names, self._reading.columns, str(self.file))
        header = next(record for record in self._records if "".join(record.fields).strip())
        for record in self._records:
            if record.is_row or record is header:
                record.fields.insert(column, name if record is header else "")

    def _set(self, record: _Record, column: int, text: str) -> None:
        """Set the value of one field, in quotes if it would not read back as the same without."""
        wanted = self._values(record)
        if wanted[column] == text:
            return
        wanted[column] = text
        delimiter, backslash = self._dialect.delimiter, self._dialect.backslash
        inner = text.replace("\\", "\\\\").replace('"', '\\"') if backslash else text.replace('"', '""')
        quoted = f'"{inner}"'
        needs_quotes = delimiter != "\t" and any(character in text for character in (delimiter, '"', "\r", "\n"))
        space = " " if self._dialect.initial_space and column and text else ""
        for field in (quoted, text) if needs_quotes else (text, quoted):
            fields = [*record.fields[:column], space + field, *record.fields[column + 1 :]]
            if self._reads_back(delimiter.join(fields), wanted):
                record.fields = fields
                return
        raise EditError(
            f"{self.file}: this {self.file.suffix[1:].upper()} file can't hold {text[:60]!r}; `calotype convert` makes "
            "JSON lines of it, which can"
        )

    def _reads_back(self, line: str, wanted: Sequence[str]) -> bool:
        if line.endswith("\r") or self._dialect.record_end(line + self._dialect.line_end, 0, self._limit) != len(line):
            return False
        return self._dialect.fields(line, self._limit) == list(wanted)

    def render(self) -> bytes:
        text = "".join(self._dialect.delimiter.join(record.fields) + record.end for record in self._records)
        if not self._is_read_alike(text):
            raise EditError(
                f"{self.file}: with this change the file would be read differently; `calotype convert` makes JSON "
                "lines of it, which can hold any caption"
            )
        try:
            return (BOM if self._bom else b"") + text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise EditError(
                f"{self.file}: {error.object[error.start]!a} is half a character, which is no text"
            ) from None

    def _is_read_alike(self, text: str) -> bool:
        """Whether the manifest's reader detects the same dialect and columns in the changed text."""
        if not any(record.is_row for record in self._records):
            return True
        try:
            heading = with_full_dialect(heading_of(text, self.file, self._reading), text)
        except ManifestError:
            return False
        return (heading.dialect, heading.names, heading.has_header) == (self._dialect, self._names, self._has_header)
