"""Makes rows from a data file's table: references, ids, captions, numbers and the other columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from calotype.errors import ManifestError
from calotype.manifest.captions import as_texts, caption_lists, is_text, is_text_list
from calotype.manifest.manifest import JSON_FIELD
from calotype.manifest.reading import Part, Reading, as_extra, make_part
from calotype.manifest.tables.archive_references import find_archived
from calotype.manifest.tables.columns import Columns
from calotype.manifest.tables.embedded import Embedded, holds_bytes
from calotype.manifest.tables.images_on_disk import find_images
from calotype.manifest.tables.inline_images import inline_images
from calotype.manifest.tables.references import normal_references

__all__ = ["table_part"]

_MAX_PATH: Final = 4096
_MAX_ID: Final = 512
_ID_HEAD: Final = 200
_MAX_SIDE: Final = 1_000_000
"""Maximum width or height in pixels."""
_MAX_WEIGHT: Final = 10_000
_MAX_TOTAL_WEIGHT: Final = 1_000_000_000


def table_part(
    raw: pa.Table,
    file: Path | str,
    reading: Reading,
    columns: Columns,
    where: Callable[[int], str],
    *,
    base: Path | None = None,
    embedded: Embedded | None = None,
    look: bool = True,
) -> Part:
    """Make the rows of one table.

    Args:
        raw: The table with the file's own column names. With `embedded`, its image column holds paths as text, or null.
        file: File of the table, or name of a dataset.
        reading: The options.
        columns: The meanings of columns.
        where: Row number → `file:line`.
        base: Folder that references are relative to. Default: the folder of `file`.
        embedded: The bytes of the image column, if it has any.
        look: Whether to search `base` for images that are missing under their reference.

    Raises:
        ManifestError: A column is missing or has a type that can't be read; bad rows are reported to `reading`.
    """
    pa.default_memory_pool().release_unused()  # memory of the parser: lowers the peak
    label = str(file)
    base = reading.image_root or base or Path(file).parent
    if not columns.captions and reading.need_captions:
        raise ManifestError(
            f"{label}: no caption column found among {', '.join(map(repr, raw.column_names))}; name it with "
            "columns={'caption': …}, or set missing_captions to 'empty' or to a text to use instead"
        )
    for name in columns.used.difference(raw.column_names):
        raise ManifestError(f"{label}: the column {name!r} holds binary data; expected text or numbers")
    problems: dict[int, str] = {}  # row → reason

    # References, or bytes of the images.
    image = _dense(raw[columns.image])
    type_ = image.type
    image = _names(image)
    if not is_text(image.type):
        raise ManifestError(
            f"{label}: the image column {columns.image!r} holds {type_}; expected paths or URLs as text, or image bytes"
        )
    if embedded is None:
        found = inline_images(image, reading.label(Path(label)) if Path(label).is_absolute() else label, problems)
        embedded, image = found if found is not None else (None, image)
    refs, empty, remote, odd = normal_references(image, base, reading.root)
    local = ~(empty | remote) if embedded is None else ~(empty | remote | embedded.inside)
    local &= ~_too_long(refs, columns.image, local, problems)
    if look and local.any():
        refs = find_images(
            refs,
            local,
            odd & local,
            base=base,
            root=reading.root,
            label=Path(label).name,
            note=reading.note,
            problems=problems,
        )
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        _require_named(refs, local, f"{label}: the image column {columns.image!r} holds {type_}", base, reading.root)
    names = offset = size = key = None
    ids = refs
    if embedded is not None:
        refs, names, ids, offset, size = _locations(embedded, refs, empty, reading)
        key = embedded.keys
        empty &= ~embedded.inside
    else:
        archived = find_archived(refs, reading.root, problems)
        if archived is not None:
            refs, names, ids, offset, size, key = archived
    for row in np.flatnonzero(empty):
        problems.setdefault(int(row), f"empty image reference in column {columns.image!r}; expected a path or URL")

    # Ids.
    explicit = columns.id is not None
    if columns.id is not None:
        ids = _ids(_dense(raw[columns.id]), columns.id, label, problems)
    named = _shortened(ids)

    # Numbers, flags and captions.
    width = _numbers(raw, columns.width, pa.int32(), _MAX_SIDE, problems)
    height = _numbers(raw, columns.height, pa.int32(), _MAX_SIDE, problems)
    weight = _numbers(raw, columns.weight, pa.float64(), _MAX_WEIGHT, problems)
    _refuse_total(weight, columns.weight, label)
    rejected = _flags(raw, columns.rejected, problems)
    captions = _captions(raw, columns.captions, label)
    part = make_part(
        raw.num_rows,
        id=named,
        ref=None if named is refs else refs,
        name=names,
        offset=offset,
        size=size,
        key=key,
        captions=captions,
        width=width,
        height=height,
        weight=weight,
        rejected=rejected,
        extra=_extras(raw, columns, reading),
        where=where,
        explicit_ids=explicit,
    )

    # Report the bad rows and drop them.
    if not problems:
        return part
    for number in sorted(problems):
        reading.bad(part.where(number), problems[number])
    keep = np.ones(part.table.num_rows, dtype=bool)
    keep[list(problems)] = False
    return part.filter(keep)


def _names(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cast numbers that name images, and lists of one image, to text; return other columns as they are."""
    if is_text_list(column.type) and pc.max(pc.list_value_length(column)).as_py() in (0, 1, None):
        has_one = pc.equal(pc.list_value_length(column), 1)
        return pc.replace_with_mask(
            pa.chunked_array([pa.nulls(len(column), pa.large_string())]),
            pc.fill_null(has_one, False).combine_chunks(),
            as_texts(pc.list_flatten(column)).combine_chunks(),
        )
    if pa.types.is_null(column.type) or pa.types.is_integer(column.type):
        return pc.cast(column, pa.large_string())
    if pa.types.is_floating(column.type):  # pandas' form of whole numbers with missing values
        try:
            return pc.cast(pc.cast(column, pa.int64()), pa.large_string())
        except pa.ArrowInvalid:
            return column
    return column


def _dense(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decode dictionary-encoded values (pandas' categories)."""
    return pc.cast(column, column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _locations(embedded: Embedded, refs: Any, no_path: npt.NDArray[np.bool_], reading: Reading) -> tuple[Any, ...]:
    """Return references, names, ids, offsets and sizes of rows that have bytes, a path, or both (then the bytes)."""
    mask = pa.array(embedded.inside)
    named = pc.binary_join_element_wise(embedded.ids, refs, _text("!"))
    names = pc.if_else(pa.array(no_path), embedded.ids, named)
    return (
        pc.if_else(mask, _text(reading.relative(embedded.file)), refs),
        pc.if_else(mask, names, _text(None)),
        pc.if_else(mask, embedded.ids, refs),
        None if embedded.offsets is None else pa.array(embedded.offsets, mask=~embedded.inside),
        None if embedded.sizes is None else pa.array(embedded.sizes, mask=~embedded.inside),
    )


def _text(value: str | None) -> pa.Scalar:
    return pa.scalar(value, pa.large_string())


def _ids(column: pa.ChunkedArray, name: str, label: str, problems: dict[int, str]) -> Any:
    try:
        ids = as_texts(column).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ManifestError(f"{label}: the id column {name!r} holds {column.type}; expected text or numbers") from None
    empty = pc.fill_null(pc.equal(pc.binary_length(ids), 0), True)
    for row in np.flatnonzero(np.asarray(empty)):
        problems.setdefault(int(row), f"empty id in column {name!r}")
    return ids


def _captions(raw: pa.Table, names: Sequence[str], label: str) -> Any:
    columns = [_dense(raw[name]) for name in names]
    try:
        return caption_lists(columns, raw.num_rows)
    except TypeError as error:
        raise ManifestError(
            f"{label}: the caption column(s) {', '.join(names)} hold {error}; expected text or lists of text"
        ) from None


def _require_named(refs: Any, local: npt.NDArray[np.bool_], found: str, base: Path, root: Path) -> None:
    """Require an image with such a name, if references are numbers."""
    some = [refs[int(row)].as_py() for row in np.flatnonzero(local)[:100]]
    if some and not any((root / ref).exists() for ref in some):
        raise ManifestError(
            f"{found}, and {base} has no image named {some[0]}; expected paths or URLs as text, "
            "image bytes, or numbers that name images (root= sets their folder)"
        )


def _too_long(refs: Any, name: str, local: npt.NDArray[np.bool_], problems: dict[int, str]) -> npt.NDArray[np.bool_]:
    """Return whether each reference is longer than any path, bool (N,), and report those that are."""
    long: npt.NDArray[np.bool_] = local & np.asarray(pc.greater(pc.binary_length(refs), _MAX_PATH))
    for row in np.flatnonzero(long):
        text = refs[int(row)].as_py()
        found = f"{name} is {text[:40] + '…'!r} of {len(text):,} characters"
        problems.setdefault(int(row), f"{found}; expected a path, a URL, or an image as base64")
    return long


def _shortened(ids: Any) -> Any:
    """Truncate ids that are too long to print, and append a hash of the whole."""
    long = np.asarray(pc.fill_null(pc.greater(pc.binary_length(ids), _MAX_ID), False))
    if not long.any():
        return ids
    chosen = ids.filter(pa.array(long)).to_pylist()
    short = [f"{text[:_ID_HEAD]}…{xxhash.xxh3_64_hexdigest(text.encode('utf-8'))}" for text in chosen]
    return pc.replace_with_mask(ids, pa.array(long), pa.array(short, pa.large_string()))


def _refuse_total(weight: Any, name: str | None, label: str) -> None:
    """Limit the samples of an epoch: a plan holds them in memory."""
    total = 0.0 if weight is None else pc.sum(weight).as_py() or 0.0
    if total > _MAX_TOTAL_WEIGHT:
        raise ManifestError(
            f"{label}: {name} adds up to {total:,.0f} images an epoch; expected {_MAX_TOTAL_WEIGHT:,} at most: divide "
            "all by the same number"
        )


def _numbers(raw: pa.Table, name: str | None, type_: pa.DataType, most: int, problems: dict[int, str]) -> Any:
    """Parse a numeric column of numbers or text; values out of range are reported."""
    if name is None:
        return None
    column = _dense(raw[name]).combine_chunks()
    if pa.types.is_null(column.type):
        return None
    if is_text(column.type):
        column = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.equal(pc.binary_length(column), 0), None, column)
    try:
        values = pc.cast(column, pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        values = pa.array([_float(value) for value in column.to_pylist()], pa.float64())
    numbers = values.to_numpy(zero_copy_only=False)
    known = np.asarray(column.is_valid())
    whole = pa.types.is_integer(type_)
    with np.errstate(invalid="ignore"):
        good = np.isfinite(numbers) & (numbers >= (1 if whole else 0)) & (numbers <= most)
        if whole:
            good &= numbers == np.floor(numbers)
    expected = (
        f"a whole number of pixels, 1 to {most:,}"
        if whole
        else f"a number, 0 or more and {most:,} at most: how many times an epoch shows the image"
    )
    for row in np.flatnonzero(known & ~good):
        problems.setdefault(int(row), f"{name} is {column[int(row)].as_py()!r}; expected {expected}")
    return pa.array(np.where(good, numbers, 0), mask=~(known & good)).cast(type_)


_YES, _NO = ("true", "yes", "1"), ("false", "no", "0", "")


def _flags(raw: pa.Table, name: str | None, problems: dict[int, str]) -> Any:
    """Parse a column of booleans, numbers or text as booleans; other values are reported."""
    if name is None:
        return None
    column = _dense(raw[name]).combine_chunks()
    if pa.types.is_boolean(column.type) or pa.types.is_null(column.type):
        return column
    flags: list[bool | None] = []
    for row, value in enumerate(column.to_pylist()):
        word = str(value).strip().lower() if isinstance(value, str) else f"{value:g}" if _is_number(value) else None
        flags.append(True if word in _YES else False if word in _NO else None)
        if value is not None and flags[-1] is None:
            problems.setdefault(row, f"{name} is {value!r}; expected true or false")
    return pa.array(flags, pa.bool_())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _extras(raw: pa.Table, columns: Columns, reading: Reading) -> list[tuple[pa.Field, Any]]:
    extras = []
    for field in raw.schema:
        if field.name in columns.used:
            continue
        if holds_bytes(field.type):
            reading.note(f"column {field.name!r} holds binary data and is not read")
            continue
        column = as_extra(field.name, raw[field.name])
        # Parquet adds keys to a field's metadata.
        is_json = JSON_FIELD.items() <= (field.metadata or {}).items()
        extras.append((column[0].with_metadata(JSON_FIELD), column[1]) if is_json else column)
    return extras
