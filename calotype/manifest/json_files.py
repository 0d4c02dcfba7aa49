"""JSON and JSON lines: the fast reader, and the patient one that names the line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from calotype.errors import ManifestError
from calotype.manifest.columns import Columns, find_columns
from calotype.manifest.json_depth import has_deep_rows, loads
from calotype.manifest.lines import line_finder
from calotype.manifest.reading import Part, Reading
from calotype.manifest.tables import table_part
from calotype.manifest.values import encodable, table_of

__all__ = ["decoded_lines", "is_row", "keyed_rows", "parse_json", "read_json", "row_problem", "wrapped_rows"]

_BLOCK = 4 << 20


def read_json(file: Path, reading: Reading) -> Part:
    """A `.json` (array of objects, object keyed by path, or lines) or `.jsonl` file."""
    with file.open("rb") as opened:
        head = opened.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        raise ManifestError(f"{file}: the file is empty")
    if file.suffix.lower() == ".json":
        if head[:1] == b"[":
            return _read_array(file, parse_json(file), reading)
        try:
            whole = loads(file.read_text(encoding="utf-8-sig"))
        except ValueError:  # more than one object: lines
            whole = None
        if isinstance(whole, dict) and not is_row(whole, reading.columns):
            return _read_object(file, whole, reading)
    return _read_lines(file, reading)


def parse_json(file: Path) -> Any:
    """The value of a whole file. Raises `ManifestError` with the line at fault."""
    try:
        return loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ManifestError(
            f"{file}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno}); "
            "expected an array of objects, an object keyed by path, or one object a line"
        ) from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{file}: not UTF-8 text (byte {error.start})") from None


def is_row(whole: Mapping[str, Any], given: Mapping[str, tuple[str, ...] | None]) -> bool:
    """A file of one line is a row when it has an image column whose value names one picture."""
    try:
        columns = find_columns(list(whole), given, "")
    except ManifestError:
        return False
    return isinstance(whole[columns.image], str)


def _read_object(file: Path, whole: dict[str, Any], reading: Reading) -> Part:
    wrapped = wrapped_rows(whole)
    if wrapped is not None:
        return _read_array(file, wrapped, reading)
    keys = list(whole)
    given = {**reading.columns, "image": ("image",)}
    return _from_objects(keyed_rows(whole), file, lambda row: f"{file} at {keys[row]!r}", reading, given)


def wrapped_rows(whole: Mapping[str, Any]) -> list[Any] | None:
    """The rows of `{"data": [{…}, …]}`; None for another form of object."""
    lists = [value for value in whole.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return lists[0] if len(whole) == 1 and lists else None


def keyed_rows(whole: Mapping[str, Any]) -> list[Any]:
    """The rows of an object keyed by path, each with the path as its `image`."""
    objects: list[Any] = []
    for path, value in whole.items():
        if isinstance(value, dict):
            objects.append({"image": path, **{name: item for name, item in value.items() if name != "image"}})
        elif value is None or isinstance(value, str | list):
            objects.append({"image": path, "caption": value})
        else:
            objects.append(value)
    return objects


def _read_array(file: Path, whole: Sequence[Any], reading: Reading) -> Part:
    return _from_objects(whole, file, lambda row: f"{file} item {row + 1}", reading, reading.columns)


def _read_lines(file: Path, reading: Reading) -> Part:
    table = _read_fast(file)
    if table is not None and table.num_rows:
        columns = find_columns(table.column_names, reading.columns, str(file))
        if _is_plain(table, columns):
            return table_part(
                table,
                reading,
                label=str(file),
                base=file.parent,
                where=line_finder(file),
                columns=columns,
            )
    return _read_patiently(file, reading)


def _read_fast(file: Path) -> pa.Table | None:
    """The whole file by Arrow's parser, or None when it meets anything that it does not take."""
    if has_deep_rows(file):
        return None
    options = pyarrow.json.ReadOptions(block_size=_BLOCK)
    try:
        table = pyarrow.json.read_json(file, read_options=options)
        if any(_has_timestamp(field.type) for field in table.schema):
            # Arrow takes text that looks like a date for a date; the text itself is what we want.
            schema = pa.schema([(field.name, _without_timestamps(field.type)) for field in table.schema])
            parse = pyarrow.json.ParseOptions(explicit_schema=schema)
            table = pyarrow.json.read_json(file, read_options=options, parse_options=parse)
        table.validate(full=True)  # the parser lets text through that is not UTF-8
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
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
    """Whether the columns that matter have the types that matter; odd ones are for the patient reader to name."""
    if len(set(table.column_names)) < len(table.column_names):
        return False
    texts = [table.schema.field(name).type for name in columns.captions]
    texts = [type_.value_type if pa.types.is_list(type_) else type_ for type_ in texts]
    texts.append(table.schema.field(columns.image).type)
    return all(type_ in (pa.string(), pa.null()) for type_ in texts)


def decoded_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """(line number, value or the error it gave) of each line that holds anything."""
    for number, line in enumerate(lines, 1):
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not line.strip():
            continue
        try:
            yield number, loads(line.decode("utf-8"))
        except ValueError as error:
            yield number, error


def _read_patiently(file: Path, reading: Reading) -> Part:
    """Line by line with Python's own parser."""
    numbers: list[int] = []
    values: list[Any] = []
    with file.open("rb") as lines:
        for number, value in decoded_lines(lines):
            numbers.append(number)
            values.append(value)
    return _from_objects(values, file, lambda row: f"{file}:{numbers[row]}", reading, reading.columns)


def _from_objects(
    values: Sequence[Any],
    file: Path,
    where: Callable[[int], str],
    reading: Reading,
    given: Mapping[str, tuple[str, ...] | None],
) -> Part:
    """Rows from Python values: what is not a good row is named or skipped one by one."""
    names = list(dict.fromkeys(name for value in values if isinstance(value, dict) for name in value))
    good: list[dict[str, Any]] = []
    places: list[int] = []
    columns: Columns | None = None
    for row, value in enumerate(values):
        if isinstance(value, dict):
            columns = columns or find_columns(names, given, str(file))
        problem = row_problem(value, columns)
        if problem:
            reading.bad(where(row), problem)
        else:
            good.append(value)
            places.append(row)
    if columns is None:
        raise ManifestError(f"{file}: no rows; expected JSON objects with an image and a caption")
    return table_part(
        table_of(good, names, columns.captions),
        reading,
        label=str(file),
        base=file.parent,
        where=lambda row: where(places[row]),
        columns=columns,
    )


def row_problem(value: Any, columns: Columns | None) -> str | None:
    """What keeps one value from being a row."""
    if isinstance(value, json.JSONDecodeError):
        return f"not valid JSON: {value.msg} (column {value.colno}); expected one object a line"
    if isinstance(value, UnicodeDecodeError):
        return f"not UTF-8 text (byte {value.start} of the line)"
    if isinstance(value, Exception):
        return f"not valid JSON: {value}"
    if not isinstance(value, dict) or columns is None:
        return f"found {_kind(value)}; expected an object with an image and a caption"
    if columns.image not in value:
        return f"no {columns.image!r}; it has {', '.join(map(repr, value)) or 'nothing'}"
    image = value[columns.image]
    if image is not None and not isinstance(image, str):
        return f"{columns.image} is {_kind(image)}; expected a path or URL"
    for name in columns.captions:
        caption = value.get(name)
        texts = caption if isinstance(caption, list) else [caption]
        for text in texts:
            if text is not None and not isinstance(text, str):
                return f"{name} holds {_kind(text)}; expected a text or a list of texts"
            if text is not None and not encodable(text):
                return f"{name} holds half a surrogate pair, which is no text"
    return None if encodable(image or "") else f"{columns.image} holds half a surrogate pair, which is no text"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
