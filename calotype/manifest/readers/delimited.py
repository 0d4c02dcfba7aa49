"""Reads CSV and TSV of any dialect, with or without a header, and preserves delimiters and quotes in captions."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from calotype.errors import ManifestError
from calotype.manifest.captions import BOM, decode_text
from calotype.manifest.file_kinds import IMAGE_SUFFIXES
from calotype.manifest.readers.dialect import DELIMITERS, Dialect, Record, sniff, with_backslash, with_spaces
from calotype.manifest.reading import Part, Reading, line_finder
from calotype.manifest.tables.columns import Columns, find_columns, is_header, recognised
from calotype.manifest.tables.references import is_remote
from calotype.manifest.tables.rows import table_part

__all__ = [
    "Heading",
    "field_limit",
    "heading_of",
    "open_delimited",
    "read_delimited",
    "read_heading",
    "with_full_dialect",
]

_DEFAULT_NAMES: Final = ("image", "caption")
_HEAD: Final = 64 * 1024
_WORDS: Final = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a vertical bar"}


class Heading(NamedTuple):
    """Dialect and columns of a file, detected from its first records."""

    dialect: Dialect
    names: list[str]
    """Names of the columns."""
    has_header: bool
    """Whether the first line is a header; else it is a row."""
    columns: Columns
    plain: bool
    """Whether the first bytes are UTF-8 without a byte order mark."""


def read_delimited(file: Path, reading: Reading) -> Part:
    """Read a `.csv` or `.tsv` file.

    The first line is a header if it names an image column. Without a header, each line is a path and, after the first
    delimiter, the caption.
    """
    heading = read_heading(file, reading)
    table = _read_fast(file, heading)
    if table is None:
        return _read_by_record(file, reading)
    if heading.dialect.initial_space:
        table = pa.table([pc.utf8_ltrim(column, " ") for column in table.columns], names=heading.names)
    where = line_finder(file, int(heading.has_header))
    return table_part(table, file, reading, heading.columns, where)


def open_delimited(file: Path, reading: Reading) -> tuple[Heading, str]:
    """Return the heading and the text of a file without its byte order mark.

    Raises:
        ManifestError: It is neither a table with a header nor lines of a path and a caption.
        UnicodeDecodeError: It is not text.
    """
    heading = read_heading(file, reading)
    text = decode_text(file.read_bytes())
    return with_full_dialect(heading, text), text


def with_full_dialect(heading: Heading, text: str) -> Heading:
    """Return the heading with the dialect detected from the whole text."""
    dialect = with_backslash(heading.dialect, text, len(heading.names), field_limit(heading))
    return heading._replace(dialect=dialect)


def field_limit(heading: Heading) -> int | None:
    """Return the number of columns if the last is a caption, which may then have unquoted delimiters."""
    last = heading.columns.captions[-1:] == tuple(heading.names[-1:])
    return len(heading.names) if last else None


def read_heading(file: Path, reading: Reading) -> Heading:
    """Detect the heading from the first records of a file, and note what differs from the suffix's default.

    Raises:
        ManifestError: As `open_delimited`.
    """
    reading.used.add("delimiter")
    text, plain = _head(file)
    heading = heading_of(text, file, reading)._replace(plain=plain)
    dialect, word = heading.dialect, _word(heading.dialect.delimiter)
    if dialect.delimiter != _default_delimiter(file) and reading.delimiter is None:
        reading.note(f"{file.name}: fields are separated by {word}")
    if not heading.has_header:
        reading.note(f"{file.name}: no header line; each line is read as an image, {word} and its caption")
    return heading


def heading_of(text: str, file: Path, reading: Reading) -> Heading:
    """Detect the heading from the first records of a text.

    Raises:
        ManifestError: As `open_delimited`.
    """
    if not text[:_HEAD].strip():
        raise ManifestError(f"{file}: the file is empty")
    base = reading.image_root or file.parent

    # The delimiter with the best score of the first records.
    def score(records: Sequence[Sequence[str]]) -> float:
        header = [field.strip() for field in records[0]]
        if _is_header(header, reading):
            return 100.0 + recognised(header, reading.columns)
        if all(len(fields) == 1 for fields in records):  # no record has this delimiter
            return 0.0
        return sum(map(_score, records)) / len(records)

    dialect = sniff(text[:_HEAD], _default_delimiter(file), score, reading.delimiter)
    # Header or not.
    first, *others = (record for record in dialect.records(text[:_HEAD], None) if record.text.strip())
    header = [field.strip() for field in dialect.fields(first.text, None)]
    has_header = _is_header(header, reading)
    dialect = with_spaces(dialect, text[:_HEAD], has_header=has_header)
    if not has_header and not _is_reference(dialect.fields(first.text, None)[0].strip(), base):
        raise ManifestError(
            f"{file}:1: found {first.text.strip()[:80]!r}; expected a header that names an image column (image, "
            f"file_name, path, url, …), or lines of an image's path, {_word(dialect.delimiter)} and its caption. Name "
            "other columns with columns={'image': …, 'caption': …}, another separator than "
            f"{', '.join(map(repr, DELIMITERS))} with delimiter=…"
        )
    if has_header:
        # Spreadsheets write empty columns at the end; two of them are not an error.
        names = [name or f"column_{index}" for index, name in enumerate(header)]
    else:
        names = list(_DEFAULT_NAMES)
        _refuse_more_columns(file, dialect, [first, *others])
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ManifestError(f"{file}:1: the header names a column twice: {', '.join(twice)}; rename one of them")
    return Heading(dialect, names, has_header, find_columns(names, reading.columns, str(file)), plain=False)


def _default_delimiter(file: Path) -> str:
    return "\t" if file.suffix.lower() == ".tsv" else ","


def _word(delimiter: str) -> str:
    return _WORDS.get(delimiter, repr(delimiter))


def _head(file: Path) -> tuple[str, bool]:
    """Return the text of the first records, and whether they are UTF-8 without a byte order mark."""
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
        whole = len(head) < _HEAD
    end = head if whole else head[: max(head.rfind(b"\n"), head.rfind(b"\r")) + 1] or head
    try:
        if b"\0" not in head and not head.startswith(BOM):
            return end.decode("utf-8"), True
        return decode_text(file.read_bytes())[:_HEAD], False
    except UnicodeDecodeError:
        # The reader reports lines that are not UTF-8; the others are enough to detect the dialect.
        line = end.removeprefix(BOM).lstrip().split(b"\n", 1)[0]
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            raise ManifestError(f"{file}:1: not UTF-8 text; save the file as UTF-8") from None
        return end.removeprefix(BOM).decode("utf-8", "replace"), False


def _is_header(fields: Sequence[str], reading: Reading) -> bool:
    """Whether these fields name columns: one is a name of image columns, and none is an image's path."""
    return is_header(fields, reading.columns) and not any(_score([field]) == 1 for field in fields)


def _score(fields: Sequence[str]) -> float:
    """Return the likelihood that a record is an image and its caption: 1 for a path or URL with an image's suffix."""
    reference = fields[0].strip().strip("\"'<>")
    if not reference:
        return 0.0
    remote = is_remote(reference)
    path = re.split(r"[?#]", reference)[0] if remote else reference
    if Path(path).suffix.lower() in IMAGE_SUFFIXES and not (remote and re.search(r"\s", reference)):
        return 1.0
    return 0.5 if remote and not re.search(r"\s", reference) else 0.25 if remote else 0.0


def _is_reference(field: str, base: Path) -> bool:
    if is_remote(field) or Path(field).suffix.lower() in IMAGE_SUFFIXES or "/" in field or "\\" in field:
        return True
    try:
        return bool(field) and (base / field).is_file()
    except (OSError, ValueError):  # too long, or a null byte
        return False


def _refuse_more_columns(file: Path, dialect: Dialect, records: Sequence[Record]) -> None:
    """Reject rows of several columns without a header: all after the first delimiter would become the caption."""
    if dialect.delimiter == "\t":
        return
    rows = [dialect.raw_fields(record.text, None) for record in records[:100]]
    count = len(rows[0])
    if count < 3 or any(len(row) != count for row in rows):
        return
    quoted = all(row[1].lstrip(" ").startswith('"') and dialect.value(row[1]) != row[1] for row in rows)
    if quoted or all(re.fullmatch(r"\s*\d+(\.\d+)?\s*", row[-1]) for row in rows):
        raise ManifestError(
            f"{file}:{records[0].line}: found {count} fields in {records[0].text[:80]!r} and no header line; expected "
            "a first line that names the columns, such as image,caption,width"
        )


def _read_fast(file: Path, heading: Heading) -> pa.Table | None:
    """Read with Arrow's parser; None: the file has quotes, or lines with another number of fields."""
    if not heading.plain:
        return None
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b'"') >= 0 or data.find(b"\0") >= 0 or (data.find(b"\r") >= 0 and data.find(b"\r\n") < 0):
            return None
    try:
        return pyarrow.csv.read_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(
                column_names=list(heading.names), skip_rows=0, skip_rows_after_names=int(heading.has_header),
                block_size=4 << 20,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=heading.dialect.delimiter, quote_char=False, double_quote=False
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(heading.names, pa.large_string()), null_values=[], strings_can_be_null=False
            ),
        )  # fmt: skip
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return None


def _read_by_record(file: Path, reading: Reading) -> Part:
    """Read record by record; bad ones are reported."""
    try:
        heading, text = open_delimited(file, reading)
    except UnicodeDecodeError:
        heading, text = read_heading(file, reading), _without_bad_lines(file, reading)
    dialect, names, limit = heading.dialect, heading.names, field_limit(heading)
    numbers: list[int] = []
    values: list[list[str]] = []
    for record in _rows(heading, text, limit):
        fields = dialect.values(record.fields)
        if len(fields) == 1 and not heading.has_header and not reading.need_captions:
            fields.append("")
        problem = _problem(record, fields, heading)
        if problem:
            reading.bad(f"{file}:{record.line}", problem)
            continue
        numbers.append(record.line)
        values.append(fields)
    table = pa.table(
        [pa.array([fields[column] for fields in values], pa.large_string()) for column in range(len(names))],
        names=names,
    )
    return table_part(table, file, reading, heading.columns, lambda row: f"{file}:{numbers[row]}")


def _rows(heading: Heading, text: str, limit: int | None) -> Iterator[Record]:
    records = (record for record in heading.dialect.records(text, limit) if record.text.strip())
    if heading.has_header:
        next(records)
    return records


_ROW_IN_QUOTES = re.compile(
    rf"[\r\n][^\r\n,;|\t]*\.(?:{'|'.join(suffix[1:] for suffix in sorted(IMAGE_SUFFIXES))})[,;|\t]", re.IGNORECASE
)


def _problem(record: Record, fields: Sequence[str], heading: Heading) -> str | None:
    """Return why a record is not a row; None if it is one."""
    names = heading.names
    if len(fields) != len(names):
        return (
            f"found {len(fields)} field(s) in {record.text[:80]!r}; expected {len(names)}: {', '.join(names)}"
            + (" (a caption with line breaks needs CSV or JSON lines)" if heading.dialect.delimiter == "\t" else "")
            + ("; put quotes around fields that hold the delimiter" if len(fields) > len(names) else "")
        )
    if "\n" in record.text and _ROW_IN_QUOTES.search(record.text):
        last = record.line + record.text.count("\n")
        return f'a quote opens here and closes in line {last}, after lines that look like rows; double quotes as ""'
    return None


def _without_bad_lines(file: Path, reading: Reading) -> str:
    """Return the text of a file; lines that are not UTF-8 are reported and returned blank."""
    lines: list[str] = []
    with file.open("rb") as opened:
        for number, line in enumerate(opened, 1):
            try:
                lines.append((line.removeprefix(BOM) if number == 1 else line).decode("utf-8"))
            except UnicodeDecodeError:
                reading.bad(f"{file}:{number}", "not UTF-8 text; save the file as UTF-8")
                lines.append("\n")
    return "".join(lines)
