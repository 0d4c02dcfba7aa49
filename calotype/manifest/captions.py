"""Captions in files and in columns: decoding of text, and lists of captions as Arrow arrays."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "BOM",
    "as_texts",
    "caption_lists",
    "decode_text",
    "is_text",
    "is_text_list",
    "list_array",
    "may_be_utf8",
    "split_captions",
]

BOM: Final = codecs.BOM_UTF8

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MARKS: Final = tuple(mark for mark, _ in _BOMS)
_UNMARKED = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_NOT_TEXT = frozenset({"Cc", "Cn", "Co", "Cs"})
_CERTAIN = 4
"""Minimum ratio of ASCII characters in the best encoding to those in the next best."""


def decode_text(data: bytes) -> str:
    """Decode a caption or data file by its byte order mark, else as UTF-8, UTF-16 or UTF-32.

    Without a mark, UTF-16 and UTF-32 are detected by their NUL bytes if only one byte order results in text.

    Raises:
        UnicodeDecodeError: The bytes are none of these, or hold NUL characters.
    """
    encoding = "utf-8"
    if data.startswith(_MARKS):
        encoding = next(encoding for mark, encoding in _BOMS if data.startswith(mark))
    if encoding == "utf-8" and b"\0" in data:
        encoding = _unmarked(data)
    text = data.decode(encoding)
    if "\0" in text:
        at = data.index(b"\0")
        raise UnicodeDecodeError(encoding, data, at, at + 1, "a NUL character, which no text has")
    return text


def may_be_utf8(head: bytes) -> bool:
    """Whether the first bytes of a file have neither a mark of UTF-16 or UTF-32 nor their NUL bytes."""
    return head[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and b"\0" not in head[:4]


def _unmarked(data: bytes) -> str:
    """Detect the encoding of a text with NUL bytes and no mark; UTF-8 if that is not certain."""
    head = data[:4096]
    scores = sorted(((_score(head, encoding), encoding) for encoding in _UNMARKED), reverse=True)
    (best, encoding), (second, _) = scores[:2]
    return encoding if best > _CERTAIN * second else "utf-8"


def _score(head: bytes, encoding: str) -> int:
    """Count the ASCII characters that this encoding gives; 0 if it results in characters that do not occur in text."""
    try:
        # Incremental: the head may end inside a character.
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return 0
    if any(unicodedata.category(char) in _NOT_TEXT and char not in "\t\n\r" for char in text):
        return 0
    return sum(char.isascii() for char in text)


def split_captions(text: str, many: bool) -> list[str]:
    """Split the text of a caption file into captions: the whole text, or with `many` one per line.

    Line breaks at the end of the file (with `many`, of each line) are not part of a caption. White space alone is not
    a caption.
    """
    lines = text.replace("\r\n", "\n").split("\n") if many else [text.rstrip("\r\n")]
    return [line for line in lines if line.strip()]


def as_texts(values: Any) -> Any:
    """Cast to strings with 64-bit offsets, so that a column may exceed 2 GB."""
    return values if pa.types.is_large_string(values.type) else pc.cast(values, pa.large_string())


def _spaces_only(values: Any) -> npt.NDArray[np.bool_]:
    blank = pc.or_(pc.equal(pc.binary_length(values), 0), pc.utf8_is_space(values))
    return np.asarray(pc.fill_null(blank, True))


def is_text(type_: pa.DataType) -> bool:
    """Whether a column of this type holds text."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def is_text_list(type_: pa.DataType) -> bool:
    """Whether a column of this type holds lists of text."""
    is_list = pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
    return bool(is_list and (is_text(type_.value_type) or pa.types.is_null(type_.value_type)))


def caption_lists(columns: Sequence[pa.ChunkedArray], count: int) -> pa.Array | pa.ChunkedArray:
    """Make one list of captions per row from columns of text or of lists of text, in the columns' order.

    Null, empty and blank values are left out.

    Raises:
        TypeError: A column holds something else; the message is its type.
    """
    columns = [column for column in columns if not pa.types.is_null(column.type)]
    for column in columns:
        if not (is_text(column.type) or is_text_list(column.type)):
            raise TypeError(str(column.type))
    if len(columns) == 1:  # the common case, chunk by chunk, so that the texts are not copied
        chunks = [_lists([chunk], len(chunk)) for chunk in columns[0].chunks]
        return pa.chunked_array(chunks, pa.list_(pa.large_string()))
    return _lists([_whole(column) for column in columns], count)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    if is_text(column.type):
        column = as_texts(column)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _lists(arrays: Sequence[pa.Array], count: int) -> pa.ListArray:
    owners: list[npt.NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    texts: list[pa.Array] = [pa.array([], pa.large_string())]
    for array in arrays:
        if is_text(array.type):
            owner, values = np.arange(count, dtype=np.int64), as_texts(array)
        else:
            owner, values = pc.list_parent_indices(array).to_numpy(), as_texts(pc.list_flatten(array))
        keep = ~_spaces_only(values)
        if not keep.all():
            owner, values = owner[keep], values.filter(pa.array(keep))
        owners.append(owner)
        texts.append(values)
    if len(texts) == 2:
        owner, values = owners[1], texts[1]
    else:
        owner = np.concatenate(owners)
        order = np.argsort(owner, kind="stable")
        values = pa.concat_arrays(texts).take(pa.array(order))
    return list_array(owner, values, count)


def list_array(owner: npt.NDArray[np.int64], values: pa.Array, count: int) -> pa.ListArray:
    """Make lists of values by their owner.

    Args:
        owner: int64 (n,), sorted: index of the list of each value.
        values: (n,) array of texts.
        count: Number of lists.
    """
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)
