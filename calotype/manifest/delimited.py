"""CSV and TSV, with or without a header, so that no comma, tab or quote of a caption is lost."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv

from calotype.errors import ManifestError
from calotype.manifest.columns import Columns, find_columns, is_header
from calotype.manifest.lines import line_finder
from calotype.manifest.reading import IMAGE_SUFFIXES, Part, Reading
from calotype.manifest.references import is_remote
from calotype.manifest.tables import table_part

__all__ = ["Heading", "next_field", "read_delimited", "read_heading", "record_end", "split_record"]

_BOM = b"\xef\xbb\xbf"
_PLAIN_NAMES = ("image", "caption")

# A quoted CSV field: ends with a quote that a comma or the line's end follows; `""` inside is one quote.
_CSV_QUOTED = re.compile(r'"[^"]*(?:""[^"]*)*"(?=,|\r?\n|\r?\Z)')


class Heading(NamedTuple):
    """What the first line of a file says of the others."""

    delimiter: str
    names: list[str]
    """Of the columns."""
    there: bool
    """The first line names them; else it is a row like the others."""
    columns: Columns


def read_delimited(file: Path, reading: Reading) -> Part:
    """A `.csv` or `.tsv` file.

    A first line that names an image column is the header. Without one, each line is a path and, after the first
    comma or tab, the caption.
    """
    delimiter, names, header, columns = read_heading(file, reading)
    fast = _read_fast(file, names, delimiter, header)
    if fast is not None:
        return table_part(
            fast, reading, label=str(file), base=file.parent, where=line_finder(file, int(header)), columns=columns
        )
    return _read_patiently(file, names, columns, delimiter, header, reading)


def read_heading(file: Path, reading: Reading) -> Heading:
    """Looks at the first line that holds anything. Raises `ManifestError` where it fits no form."""
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    with file.open("rb") as opened:
        first = next((line for line in opened if line.removeprefix(_BOM).strip()), b"")
    if not first:
        raise ManifestError(f"{file}: the file is empty")
    try:
        head = first.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError:
        raise ManifestError(f"{file}:1: not UTF-8 text; save the file as UTF-8") from None
    fields = [_unquote(field.strip()) for field in head.rstrip("\r\n").split(delimiter)]
    header = is_header(fields, reading.columns)
    if not header and not _is_reference(fields[0], reading.image_root or file.parent):
        raise ManifestError(
            f"{file}:1: found {head.strip()[:80]!r}; expected a header that names an image column (image, file_name, "
            f"path, url, …), or lines of a picture's path, {'a tab' if delimiter == chr(9) else 'a comma'} and its "
            "caption. Name other columns with columns={'image': …, 'caption': …}"
        )
    # Spreadsheets end lines with empty columns; two of them are no mistake.
    names = [name or f"column_{place}" for place, name in enumerate(fields)] if header else list(_PLAIN_NAMES)
    if len(set(names)) < len(names):
        raise ManifestError(f"{file}:1: the header names a column twice: {', '.join(names)}")
    return Heading(delimiter, names, header, find_columns(names, reading.columns, str(file)))


def _is_reference(field: str, base: Path) -> bool:
    if is_remote(field) or Path(field).suffix.lower() in IMAGE_SUFFIXES or "/" in field or "\\" in field:
        return True
    return bool(field) and (base / field).is_file()


def _read_fast(file: Path, names: Sequence[str], delimiter: str, header: bool) -> pa.Table | None:
    """By Arrow's parser: only for files without any quote, all of whose lines have as many fields as the first."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b'"') >= 0 or data[:3] == _BOM or (data.find(b"\r") >= 0 and data.find(b"\r\n") < 0):
            return None
    try:
        return pyarrow.csv.read_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(
                column_names=list(names), skip_rows=0, skip_rows_after_names=int(header), block_size=4 << 20
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=False, double_quote=False),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.large_string()), null_values=[], strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return None


def _lines(file: Path) -> Iterator[tuple[int, str | bytes]]:
    """(number, text without its line break) of each line; bytes when it is not UTF-8."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            line = (line.removeprefix(_BOM) if number == 1 else line).removesuffix(b"\n").removesuffix(b"\r")
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError:
                yield number, line


def _read_patiently(
    file: Path, names: Sequence[str], columns: Columns, delimiter: str, header: bool, reading: Reading
) -> Part:
    last = names.index(columns.captions[-1]) if columns.captions else -1
    # A caption in the last column may hold the delimiter without quotes around it.
    open_end = last == len(names) - 1
    records = _lines(file) if delimiter == "\t" else _csv_records(file)
    numbers: list[int] = []
    values: list[list[str]] = []
    skip = header
    for number, record in records:
        if isinstance(record, bytes):
            reading.bad(f"{file}:{number}", "not UTF-8 text; save the file as UTF-8")
            continue
        if not record.strip():
            continue
        if skip:
            skip = False
            continue
        fields = split_record(record, delimiter, len(names) if open_end else None)
        if len(fields) == 1 and not header and not reading.need_captions:
            fields.append("")
        if len(fields) != len(names):
            reading.bad(
                f"{file}:{number}",
                f"found {len(fields)} field(s) in {record[:80]!r}; expected {len(names)}: {', '.join(names)}"
                + ("" if delimiter == "," else " (a caption with line breaks needs CSV or JSON lines)"),
            )
            continue
        numbers.append(number)
        values.append(fields)
    table = pa.table(
        [pa.array([fields[place] for fields in values], pa.large_string()) for place in range(len(names))],
        names=list(names),
    )
    return table_part(
        table,
        reading,
        label=str(file),
        base=file.parent,
        where=lambda row: f"{file}:{numbers[row]}",
        columns=columns,
    )


def _csv_records(file: Path) -> Iterator[tuple[int, str | bytes]]:
    """Lines, joined where a quoted field goes over several of them."""
    text = file.read_bytes().removeprefix(_BOM)
    try:
        whole = text.decode("utf-8")
    except UnicodeDecodeError:
        yield from _lines(file)  # only to name the bad line: quoted line breaks don't matter any more
        return
    at, line = 0, 1
    while at < len(whole):
        end = record_end(whole, at)
        record = whole[at:end]
        yield line, record.removesuffix("\r")
        line += record.count("\n") + 1
        at = end + 1


def record_end(text: str, at: int) -> int:
    """Where the record that starts at `at` ends: the first line break outside a quoted field."""
    while True:
        line_end = text.find("\n", at)
        line_end = len(text) if line_end < 0 else line_end
        if text.find('"', at, line_end) < 0:
            return line_end
        if text.startswith('"', at):
            match = _CSV_QUOTED.match(text, at)
            if match:
                at = match.end()
                if at < len(text) and text[at] == ",":
                    at += 1
                    continue
                line_end = text.find("\n", at)
                return len(text) if line_end < 0 else line_end
        comma = text.find(",", at, line_end)
        if comma < 0:
            return line_end
        at = comma + 1


def split_record(record: str, delimiter: str, limit: int | None) -> list[str]:
    """The fields of a record; with a `limit`, the last one takes all the rest."""
    fields: list[str] = []
    at = 0
    while True:
        if limit is not None and len(fields) == limit - 1:
            fields.append(_unquote_whole(record[at:], delimiter))
            return fields
        field, at = next_field(record, at, delimiter)
        fields.append(field)
        if at > len(record):
            return fields


def next_field(record: str, at: int, delimiter: str) -> tuple[str, int]:
    """One field and where the next one starts (beyond the record's end when there is none)."""
    if record.startswith('"', at):
        match = _QUOTED[delimiter].match(record, at)
        if match:
            field = _unquote_whole(match[0], delimiter)
            return field, match.end() + 1
    end = record.find(delimiter, at)
    end = len(record) if end < 0 else end
    return record[at:end], end + 1


_QUOTED = {
    ",": re.compile(r'"[^"]*(?:""[^"]*)*"(?=,|\Z)'),
    "\t": re.compile(r'"[^"]*(?:""[^"]*)*"(?=\t|\Z)'),
}


def _unquote_whole(text: str, delimiter: str) -> str:
    """A field without its quotes, if it was quoted as a whole; else as it is.

    In TSV quotes are mostly meant as they stand, so they are only taken for quoting where quoting was needed.
    """
    match = _QUOTED[delimiter].fullmatch(text)
    if not match:
        return text
    inner = text[1:-1]
    needed = delimiter == "," or "\t" in inner or '""' in inner
    return inner.replace('""', '"') if needed else text


def _unquote(field: str) -> str:
    return field[1:-1].replace('""', '"') if len(field) > 1 and field[0] == field[-1] == '"' else field
