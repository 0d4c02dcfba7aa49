"""CSV and TSV as documents: changed fields are written anew, everything else stays byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from calotype.editing.document import Document, find_entries
from calotype.errors import EditError, ManifestError
from calotype.manifest.columns import find_columns
from calotype.manifest.delimited import next_field, read_heading, record_end, split_record
from calotype.manifest.reading import Reading

__all__ = ["DelimitedDocument"]

_BOM: Final = b"\xef\xbb\xbf"


@dataclass(slots=True, eq=False)
class _Record:
    """A line, or several where a quoted field goes over them."""

    fields: list[str]
    """As they stand between the delimiters; the whole line where it is no row."""
    end: str
    """Its line break."""
    is_row: bool = True


class DelimitedDocument(Document):
    """A `.csv` or `.tsv` file, with or without a header.

    A picture with more captions than there are caption columns has further rows. A column that is missing is added, and
    a header with it where there is none.

    Raises:
        ManifestError: It can't be read.
    """

    def __init__(self, file: Path, reading: Reading) -> None:
        self.file, self._reading = file, reading
        self._delimiter, names, self._headed, self._columns = read_heading(file, reading)
        self._names = list(names)
        data = file.read_bytes()
        self._bom = data.startswith(_BOM)
        try:
            text = data.removeprefix(_BOM).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ManifestError(f"{file}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
        self._records = list(self._split(text))
        rows = [record for record in self._records if record.is_row]
        values = [self._values(record) for record in rows]
        table = pa.table(
            [pa.array([row[place] for row in values], pa.large_string()) for place in range(len(names))],
            names=self._names,
        )
        self.entries = find_entries(table, self._columns, rows, file, reading, lambda row: f"{file} row {row + 1}")

    def _split(self, text: str) -> Iterator[_Record]:
        at, header = 0, self._headed
        while at < len(text):
            end = record_end(text, at) if self._delimiter == "," else text.find("\n", at)
            end = len(text) if end < 0 else end
            line = text[at:end].removesuffix("\r")
            rest = text[at + len(line) : end + 1]
            at = end + 1
            if not line.strip():
                yield _Record([line], rest, is_row=False)
                continue
            fields = self._fields(line)
            if len(fields) == 1 and not self._headed:
                fields.append("")
            yield _Record(
                fields if len(fields) == len(self._names) else [line],
                rest,
                is_row=not header and len(fields) == len(self._names),
            )
            header = False

    @property
    def _limit(self) -> int | None:
        """A caption in the last column may hold the delimiter."""
        captions = self._columns.captions
        return len(self._names) if captions and captions[-1] == self._names[-1] else None

    def _fields(self, line: str) -> list[str]:
        """As `split_record` finds them, with their quotes."""
        fields: list[str] = []
        at = 0
        while at <= len(line):
            if self._limit is not None and len(fields) == self._limit - 1:
                return [*fields, line[at:]]
            _, after = next_field(line, at, self._delimiter)
            fields.append(line[at : after - 1])
            at = after
        return fields

    def _values(self, record: _Record) -> list[str]:
        return split_record(self._delimiter.join(record.fields), self._delimiter, self._limit)

    def set_captions(self, records: Sequence[Any], captions: Sequence[str]) -> None:
        if not self._columns.captions:
            self._insert(len(self._names), "caption")
        records = list(records)
        places = [self._names.index(name) for name in self._columns.captions]
        while len(records) * len(places) < len(captions):
            another = replace(records[0], fields=list(records[0].fields))
            self._records.insert(self._records.index(records[-1]) + 1, another)
            if not records[-1].end:
                records[-1].end = "\n"
                another.end = ""
            records.append(another)
        cells = [(record, place) for record in records for place in places]
        for number, (record, place) in enumerate(cells):
            self._set(record, place, captions[number] if number < len(captions) else "")
        for record in records[1:]:
            others = [place for place in range(len(self._names)) if place not in places]
            blank = all(not record.fields[place].strip() for place in places)
            if blank and all(record.fields[place] == records[0].fields[place] for place in others):
                self._records.remove(record)

    def set_rejected(self, record: Any, rejected: bool) -> None:
        if self._columns.rejected is None:
            if not rejected:
                return
            self._insert(self._names.index(self._columns.image) + 1, "rejected")
        assert self._columns.rejected is not None
        self._set(record, self._names.index(self._columns.rejected), "true" if rejected else "")

    def add(self, picture: str) -> Any:
        record = _Record([""] * len(self._names), "\n")
        if self._records:
            record.end = self._records[0].end or "\n"
            self._records[-1].end = self._records[-1].end or record.end
        self._records.append(record)
        self._set(record, self._names.index(self._columns.image), picture)
        return record

    def _insert(self, place: int, name: str) -> None:
        """A new column, blank but for its name."""
        if not self._headed:
            end = self._records[0].end or "\n"
            self._records.insert(0, _Record(list(self._names), end, is_row=False))
            self._headed = True
        self._names.insert(place, name)
        self._columns = find_columns(self._names, self._reading.columns, str(self.file))
        header = next(record for record in self._records if "".join(record.fields).strip())
        for record in self._records:
            if record.is_row or record is header:
                record.fields.insert(place, name if record is header else "")

    def _set(self, record: _Record, place: int, text: str) -> None:
        """Gives one field a new value: plain where that reads back as the same, else in quotes."""
        wanted = self._values(record)
        if wanted[place] == text:
            return
        wanted[place] = text
        quoted = '"' + text.replace('"', '""') + '"'
        odd = self._delimiter == "," and any(sign in text for sign in ',"\r\n')
        for field in (quoted, text) if odd else (text, quoted):
            fields = [*record.fields[:place], field, *record.fields[place + 1 :]]
            if self._reads_back(self._delimiter.join(fields), wanted):
                record.fields = fields
                return
        raise EditError(
            f"{self.file}: this {self.file.suffix[1:].upper()} file can't hold {text[:60]!r}; `calotype convert` makes "
            "JSON lines of it, which can"
        )

    def _reads_back(self, line: str, wanted: Sequence[str]) -> bool:
        if self._delimiter == ",":
            if record_end(line + "\n", 0) != len(line) or line.endswith("\r"):
                return False
        elif "\n" in line or "\r" in line:
            return False
        return split_record(line, self._delimiter, self._limit) == list(wanted)

    def render(self) -> bytes:
        text = "".join(self._delimiter.join(record.fields) + record.end for record in self._records)
        try:
            return (_BOM if self._bom else b"") + text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise EditError(
                f"{self.file}: {error.object[error.start]!a} is half a character, which is no text"
            ) from None
