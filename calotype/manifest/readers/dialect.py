"""Dialects of CSV: splitting a text into records and fields, and detecting its dialect."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple

from calotype.errors import ConfigError

__all__ = ["DELIMITERS", "Dialect", "Record", "parse_delimiter", "sniff", "with_backslash", "with_spaces"]

DELIMITERS: Final = (",", "\t", ";", "|")
_SAMPLE: Final = 100  # records
_QUOTED_START: Final = ('"', " ")
"""First characters of a quoted field."""


def parse_delimiter(given: str | None) -> str | None:
    """Parse the option `delimiter`: a character, or `tab`, which is easier to type in a shell.

    Raises:
        ConfigError: It is neither.
    """
    if given is None or (
        isinstance(given, str) and len(given) == 1 and not given.isalnum() and given not in "\"'\r\n\\"
    ):
        return given
    if given in ("tab", "\\t"):
        return "\t"
    raise ConfigError(f"delimiter: found {given!r}; expected one character such as ',', ';' or '|', or 'tab'")


class Record(NamedTuple):
    """A line, or several that a quoted field spans."""

    line: int
    """Number of its first line, counted from 1."""
    text: str
    """Without its line end."""
    end: str
    """The line end; empty for a last line without one."""
    fields: list[str]
    """The fields as written between the delimiters."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a delimited text is split into records and fields.

    Quotes around a whole field delimit it, as in RFC 4180, with or without spaces around them; others are part of the
    field. In TSV, quotes delimit a field only if it has a tab or a doubled quote, which only programs write, and no
    field spans lines.
    """

    delimiter: str
    initial_space: bool = False
    """Spaces after a delimiter are not part of the field."""
    backslash: bool = False
    """A quote inside a quoted field is written as `\\"`."""
    line_end: str = "\n"
    """A line feed (a carriage return before it is part of the end), or a lone carriage return."""

    def records(self, text: str, limit: int | None) -> Iterator[Record]:
        """Yield the records of a text, blank ones too: joined with their line ends they are the text.

        Args:
            text: The text.
            limit: Number of columns. The last field then takes the rest of the record, delimiters included, unless it
                begins with a quoted field. None: no limit.
        """
        at, line = 0, 1
        while at < len(text):
            stop = self._line_end(text, at)
            fields = None
            if self.delimiter != "\t" and text.find('"', at, stop) >= 0:
                fields, stop = self._scan(text, at, limit)
            record = text[at:stop]
            after = stop + len(self.line_end)
            if self.line_end == "\n" and record.endswith("\r"):
                record = record[:-1]
                if fields is not None:
                    fields[-1] = fields[-1].removesuffix("\r")
            if fields is None:
                fields = self._unquoted(record, limit)
            yield Record(line, record, text[at + len(record) : after], fields)
            line += record.count(self.line_end) + 1
            at = after

    def record_end(self, text: str, at: int, limit: int | None) -> int:
        """Return where the record from `at` on ends: the first line end outside a quoted field."""
        return self._line_end(text, at) if self.delimiter == "\t" else self._scan(text, at, limit)[1]

    def raw_fields(self, record: str, limit: int | None) -> list[str]:
        """Return the fields of a record as written."""
        if self.delimiter == "\t" or '"' not in record:
            return self._unquoted(record, limit)
        return self._scan(record, 0, limit)[0]

    def _line_end(self, text: str, at: int) -> int:
        stop = text.find(self.line_end, at)
        return len(text) if stop < 0 else stop

    def _unquoted(self, record: str, limit: int | None) -> list[str]:
        """Split a record of a text without quoting, or of TSV."""
        if '"' not in record:
            return record.split(self.delimiter, -1 if limit is None else limit - 1)
        quoted = _quoted(self.delimiter, self.backslash)
        fields: list[str] = []
        at = 0
        while at <= len(record):
            match = quoted.match(record, at)
            stop = match.end() if match else record.find(self.delimiter, at)
            if len(fields) + 1 == limit or stop < 0:
                stop = len(record)
            fields.append(record[at:stop])
            at = stop + 1
        return fields

    def _scan(self, text: str, at: int, limit: int | None) -> tuple[list[str], int]:
        """Return the fields, as written, of the record from `at` on, and where it ends."""
        quoted, delimiter = _quoted(self.delimiter, self.backslash), self.delimiter
        fields: list[str] = []
        while True:
            match = quoted.match(text, at) if text.startswith(_QUOTED_START, at) else None
            if match:
                end = match.end()
                fields.append(text[at:end])
                if text.startswith(delimiter, end):
                    at = end + 1
                    continue
                stop = self._line_end(text, end)
                rest = text[end:stop].removesuffix("\r")
                return ([*fields, rest] if rest else fields), stop
            stop = self._line_end(text, at)
            end = -1 if len(fields) + 1 == limit else text.find(delimiter, at, stop)
            if end < 0:
                rest = text[at:stop]
                fields.append(rest)
                return fields, stop
            fields.append(text[at:end])
            at = end + 1

    def value(self, field: str) -> str:
        """Return the value of a field as written."""
        if '"' in field:
            if field[0] == field[-1] == '"' and self.delimiter != "\t" and not self.backslash:
                inner = field[1:-1]
                if '"' not in inner:
                    return inner
            match = _quoted(self.delimiter, self.backslash).fullmatch(field)
            if match:
                inner = match[1]
                if self.backslash:
                    return _ESCAPED.sub(lambda escaped: escaped[0][1], inner)
                if self.delimiter != "\t" or "\t" in inner or '""' in inner:
                    return inner.replace('""', '"')
        return field.lstrip(" ") if self.initial_space else field

    def values(self, fields: Sequence[str]) -> list[str]:
        """Return the values of fields as written."""
        if not self.initial_space and not any('"' in field for field in fields):
            return list(fields)
        return [self.value(field) for field in fields]

    def fields(self, record: str, limit: int | None) -> list[str]:
        """Return the values of a record's fields."""
        return self.values(self.raw_fields(record, limit))


_ESCAPED = re.compile(r'\\["\\]|""')


@lru_cache(32)
def _quoted(delimiter: str, backslash: bool) -> re.Pattern[str]:
    """Compile the pattern of a quoted field, followed by a delimiter or line end."""
    inner = r'[^"\\]*(?:(?:\\.|"")[^"\\]*)*' if backslash else r'[^"]*(?:""[^"]*)*'
    if delimiter == "\t":
        return re.compile(rf'"({inner})"(?=\t|\Z)', re.DOTALL)
    return re.compile(rf' *"({inner})" *(?={re.escape(delimiter)}|[\r\n]|\Z)', re.DOTALL)


def sniff(text: str, default: str, score: Callable[[Sequence[Sequence[str]]], float], given: str | None) -> Dialect:
    """Detect the dialect of a text.

    Args:
        text: The text, or its first records.
        default: The delimiter of the file's suffix, which wins a tie.
        score: Rates the first records, split into fields; the first of them may be a header.
        given: The delimiter, if the option is set.
    """
    returns, feeds = text.count("\r") - text.count("\r\n"), text.count("\n")
    line_end = "\r" if returns > feeds else "\n"
    best: tuple[float, Dialect] | None = None
    for delimiter in (given,) if given is not None else (default, *(each for each in DELIMITERS if each != default)):
        dialect = Dialect(delimiter, line_end=line_end)
        rating = score([dialect.fields(record, None) for record in _first(dialect, text)])
        if best is None or rating > best[0]:
            best = (rating, dialect)
    assert best is not None
    return best[1]


def with_spaces(dialect: Dialect, text: str, *, has_header: bool) -> Dialect:
    """Return the dialect, with `initial_space` set if all delimiters of the header have a space after them.

    Without a header: if those of all rows have one, and a quoted field follows some of them.
    """
    if dialect.delimiter == "\t":
        return dialect
    rows = [dialect.raw_fields(record, None)[1:] for record in _first(dialect, text)]
    spaced = [all(field.startswith(" ") for field in fields) for fields in rows]
    quoted = any(field.startswith(" ") and field.lstrip(" ").startswith('"') for fields in rows for field in fields)
    return replace(dialect, initial_space=bool(rows[0]) and spaced[0] if has_header else quoted and all(spaced))


def _first(dialect: Dialect, text: str) -> list[str]:
    found: list[str] = []
    for record in dialect.records(text, None):
        if record.text.strip():
            found.append(record.text)
            if len(found) == _SAMPLE:
                break
    return found


def with_backslash(dialect: Dialect, text: str, columns: int, limit: int | None) -> Dialect:
    """Return the dialect, with `backslash` set if that gives fewer malformed records."""
    if dialect.delimiter == "\t" or '\\"' not in text:
        return dialect
    escaping = replace(dialect, backslash=True)
    return escaping if _faults(escaping, text, columns, limit) < _faults(dialect, text, columns, limit) else dialect


def _faults(dialect: Dialect, text: str, columns: int, limit: int | None) -> int:
    """Count records with a wrong number of fields, and fields whose quotes enclose only a part."""
    quoted = _quoted(dialect.delimiter, dialect.backslash)
    faults = 0
    for record in dialect.records(text, limit):
        if '"' in record.text:
            fields = record.fields
            faults += len(fields) != columns
            faults += sum(field.lstrip(" ").startswith('"') and not quoted.fullmatch(field) for field in fields)
    return faults
