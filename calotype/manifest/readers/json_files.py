"""Reads JSON and JSON lines: with Arrow's fast parser, or line by line to report the bad ones."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from calotype.errors import ManifestError
from calotype.manifest.captions import BOM, decode_text, may_be_utf8
from calotype.manifest.readers.json_forms import JsonForm, form_of, is_row
from calotype.manifest.reading import Part, Reading, line_finder
from calotype.manifest.strict_json import has_deep_rows, loads
from calotype.manifest.tables.columns import Columns, find_columns
from calotype.manifest.tables.rows import table_part
from calotype.manifest.tables.values import encodable, table_of

__all__ = ["decoded_lines", "open_form", "read_json", "row_problem", "with_text"]

_BLOCK = 4 << 20


def read_json(file: Path, reading: Reading) -> Part:
    """Read a `.json` file of any form in `json_forms.py`, or a `.jsonl` or `.ndjson` file."""
    found = open_form(file, reading)
    if found is None:
        return _read_lines(file, reading)
    _, form = found
    return _from_objects(form.rows, file, lambda row: form.where(file, row), reading, form.given(reading))


def open_form(file: Path, reading: Reading) -> tuple[Any, JsonForm] | None:
    """Return the value of a file that is one JSON value, and its form; None if it has one object per line.

    Raises:
        ManifestError: It is empty, or its value has no rows.
    """
    data = file.read_bytes() if file.suffix.lower() == ".json" else _first_bytes(file)
    head = data[:4096].removeprefix(BOM).lstrip()
    if not head:
        raise ManifestError(f"{file}: the file is empty")
    if file.suffix.lower() != ".json":
        if head[:1] != b"[":
            return None
        try:  # an array in a file with the suffix of JSON lines
            whole = loads(decode_text(file.read_bytes()))
        except ValueError:
            return None
    elif head[:1] == b"[":
        whole = _parse(file, data)
    else:
        try:
            whole = loads(decode_text(data))
        except json.JSONDecodeError:  # more than one object: lines
            return None
        except ValueError:
            whole = _parse(file, data)
        if isinstance(whole, dict) and is_row(whole, reading.columns):
            return None
    return whole, form_of(whole, file, reading)


def _first_bytes(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(4096)


def _parse(file: Path, data: bytes) -> Any:
    """Parse a whole file.

    Raises:
        ManifestError: It is not valid JSON; the message has the line.
    """
    try:
        return loads(decode_text(data))
    except json.JSONDecodeError as error:
        raise ManifestError(
            f"{file}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno}); "
            "expected an array of objects, an object keyed by path, or one object a line"
        ) from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{file}: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise ManifestError(f"{file}: {error}; rename or remove one of them") from None


def _read_lines(file: Path, reading: Reading) -> Part:
    table = _read_fast(file)
    if table is not None and table.num_rows:
        columns = find_columns(table.column_names, reading.columns, str(file))
        if _is_plain(table, columns):
            return table_part(table, file, reading, columns, line_finder(file))
    return _read_by_line(file, reading)


def _read_fast(file: Path) -> pa.Table | None:
    """Read the file with Arrow's parser; None: it can't, or it would change values."""
    if has_deep_rows(file):
        return None
    options = pyarrow.json.ReadOptions(block_size=_BLOCK)
    try:
        table = pyarrow.json.read_json(file, read_options=options)
        if any(_has_timestamp(field.type) for field in table.schema):
            # Arrow parses text that looks like a date; the text itself is wanted.
            schema = pa.schema([(field.name, _without_timestamps(field.type)) for field in table.schema])
            parse = pyarrow.json.ParseOptions(explicit_schema=schema)
            table = pyarrow.json.read_json(file, read_options=options, parse_options=parse)
        table.validate(full=True)  # the parser accepts text that is not UTF-8
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):  # the last one: column names
        return None
    return None if any(_loses_digits(chunk) for column in table.columns for chunk in column.chunks) else table


def _loses_digits(values: pa.Array) -> bool:
    """Whether whole numbers may have been rounded: Arrow makes floats of those beyond 64 bits or among fractions."""
    if pa.types.is_floating(values.type):
        bounds = pc.min_max(values).as_py()
        return bounds["max"] is not None and max(-bounds["min"], bounds["max"]) >= 2.0**53
    if pa.types.is_struct(values.type) or pa.types.is_list(values.type):
        below = values.flatten()
        return any(_loses_digits(each) for each in (below if isinstance(below, list) else [below]))
    return False


def _has_timestamp(type_: pa.DataType) -> bool:
    return bool(_without_timestamps(type_) != type_)


def _without_timestamps(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_temporal(type_):
        return pa.string()
    if pa.types.is_struct(type_):
        return pa.struct([(field.name, _without_timestamps(field.type)) for field in type_])
    if pa.types.is_list(type_):
        return pa.list_(_without_timestamps(type_.value_type))
    return type_


def _is_plain(table: pa.Table, columns: Columns) -> bool:
    """Whether image and caption columns have plain types; others are read line by line, to report bad rows."""
    if len(set(table.column_names)) < len(table.column_names):
        return False
    texts = [table.schema.field(name).type for name in columns.captions]
    texts = [type_.value_type if pa.types.is_list(type_) else type_ for type_ in texts]
    texts.append(table.schema.field(columns.image).type)
    return all(type_ in (pa.string(), pa.null()) for type_ in texts)


def decoded_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """Yield (line number, value or the error of parsing it) of each line that is not blank."""
    for number, line in enumerate(lines, 1):
        line = line.removeprefix(BOM) if number == 1 else line
        if not line.strip():
            continue
        try:
            yield number, loads(line.decode("utf-8"))
        except ValueError as error:
            yield number, error


def _read_by_line(file: Path, reading: Reading) -> Part:
    """Read line by line with Python's parser."""
    numbers: list[int] = []
    values: list[Any] = []
    with file.open("rb") as opened:
        head = opened.read(4)
        opened.seek(0)
        lines = opened if may_be_utf8(head) else io.BytesIO(_as_utf8(file))
        for number, value in decoded_lines(lines):
            numbers.append(number)
            values.append(value)
    return _from_objects(values, file, lambda row: f"{file}:{numbers[row]}", reading, reading.columns)


def _as_utf8(file: Path) -> bytes:
    try:
        return decode_text(file.read_bytes()).encode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{file}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None


def _from_objects(
    values: Sequence[Any],
    file: Path,
    where: Callable[[int], str],
    reading: Reading,
    given: Mapping[str, tuple[str, ...] | None],
) -> Part:
    """Make rows from Python values; each bad one is reported.

    Args:
        values: Objects, or errors of parsing them.
        file: The file.
        where: Index of a value → `file:line`.
        reading: The options.
        given: Meaning → columns, from the options and the form.
    """
    names = list(dict.fromkeys(name for value in values if isinstance(value, dict) for name in value))
    good: list[dict[str, Any]] = []
    indices: list[int] = []
    columns: Columns | None = None
    for row, value in enumerate(values):
        if isinstance(value, dict):
            columns = columns or find_columns(names, given, str(file))
        problem = row_problem(value, columns)
        if problem:
            reading.bad(where(row), problem)
        else:
            assert columns is not None
            good.append(with_text(value, columns.image))
            indices.append(row)
    if columns is None:
        raise ManifestError(f"{file}: no rows; expected JSON objects with an image and a caption")
    return table_part(table_of(good, names, columns.captions), file, reading, columns, lambda row: where(indices[row]))


def with_text(value: dict[str, Any], image: str) -> dict[str, Any]:
    """Return the row with its image reference as text."""
    return value if isinstance(value[image], str | None) else {**value, image: _as_text(value[image])}


def _as_text(image: Any) -> str | None:
    """Return the reference in a value: a text, a number, a list of one item, or the form of an image in `datasets`."""
    if isinstance(image, list) and len(image) == 1:
        return _as_text(image[0])
    if isinstance(image, dict) and image.keys() <= {"bytes", "path"}:
        image = image.get("bytes") or image.get("path")
    if isinstance(image, int) and not isinstance(image, bool):
        return str(image)
    return image if isinstance(image, str) else None


def row_problem(value: Any, columns: Columns | None) -> str | None:
    """Return why a value is not a row; None if it is one."""
    if isinstance(value, json.JSONDecodeError):
        return f"not valid JSON: {value.msg} (column {value.colno}); expected one object a line"
    if isinstance(value, UnicodeDecodeError):
        return f"not UTF-8 text (byte {value.start} of the line)"
    if isinstance(value, Exception):
        return str(value)
    if not isinstance(value, dict) or columns is None:
        return f"found {_kind(value)}; expected an object with an image and a caption"
    if columns.image not in value:
        return f"no {columns.image!r}; it has {', '.join(map(repr, value)) or 'nothing'}"
    image = value[columns.image]
    if image is not None and _as_text(image) is None:
        return f"{columns.image} is {_kind(image)}; expected a path or URL"
    for name in columns.captions:
        caption = value.get(name)
        texts = caption if isinstance(caption, list) else [caption]
        for text in texts:
            if text is not None and not isinstance(text, str):
                return f"{name} holds {_kind(text)}; expected a text or a list of texts"
            if text is not None and not encodable(text):
                return f"{name} holds half a surrogate pair, which is no text"
    return (
        None if encodable(_as_text(image) or "") else f"{columns.image} holds half a surrogate pair, which is no text"
    )


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
