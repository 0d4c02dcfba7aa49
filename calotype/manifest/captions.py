"""Captions as the data has them: files beside pictures, and columns of tables."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["as_texts", "caption_lists", "decode_text", "split_captions"]

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def decode_text(data: bytes) -> str:
    """The text of a caption file: UTF-8, or what its byte order mark says.

    Raises:
        UnicodeDecodeError: The bytes are neither.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding)
    return data.decode("utf-8")


def split_captions(text: str, many: bool) -> list[str]:
    """A caption file's captions: its whole text, or one a line.

    Only the line breaks that end the file (or, with `many`, each line) are not part of a caption. A text of nothing
    but white space is no caption.
    """
    lines = text.replace("\r\n", "\n").split("\n") if many else [text.rstrip("\r\n")]
    return [line for line in lines if line.strip()]


def as_texts(values: Any) -> Any:
    """Strings with 64-bit offsets, so that a column may exceed 2 GB."""
    return values if pa.types.is_large_string(values.type) else pc.cast(values, pa.large_string())


def _spaces_only(values: Any) -> npt.NDArray[np.bool_]:
    blank = pc.or_(pc.equal(pc.binary_length(values), 0), pc.utf8_is_space(values))
    return np.asarray(pc.fill_null(blank, True))


def is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def is_text_list(type_: pa.DataType) -> bool:
    is_list = pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
    return bool(is_list and (is_text(type_.value_type) or pa.types.is_null(type_.value_type)))


def caption_lists(columns: Sequence[pa.ChunkedArray], count: int) -> pa.ListArray:
    """One list of captions a row from columns of text or of lists of text, in the columns' order.

    Null, empty and white space only values are no captions and are left out.

    Raises:
        TypeError: A column holds something else; the message says what.
    """
    owners: list[npt.NDArray[np.int64]] = []
    texts: list[pa.Array] = []
    for column in columns:
        plain = column.combine_chunks()
        if isinstance(plain, pa.ChunkedArray):  # more than 2 GB of text
            plain = as_texts(column).combine_chunks()
        if pa.types.is_null(plain.type):
            continue
        if is_text(plain.type):
            owner, values = np.arange(count, dtype=np.int64), as_texts(plain)
        elif is_text_list(plain.type):
            owner, values = pc.list_parent_indices(plain).to_numpy(), as_texts(pc.list_flatten(plain))
        else:
            raise TypeError(str(plain.type))
        keep = ~_spaces_only(values)
        if not keep.all():
            owner, values = owner[keep], values.filter(pa.array(keep))
        owners.append(owner)
        texts.append(values)
    if len(texts) == 1:
        owner, values = owners[0], texts[0]
    else:
        owner = np.concatenate([np.zeros(0, dtype=np.int64), *owners])
        order = np.argsort(owner, kind="stable")
        values = pa.concat_arrays([pa.array([], pa.large_string()), *texts]).take(pa.array(order))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)
