"""What the forms share that hold images and, beside each, a JSON text about it."""

from __future__ import annotations

from calotype.convert.form import MEMBER, Images, Record, Target
from calotype.convert.jsonl import JsonForm, to_json
from calotype.errors import ConvertError

__all__ = ["ArchiveForm", "description"]

_MAX_TEXT = 1 << 20
"""Readers of ours pass over longer texts in archives."""


class ArchiveForm(JsonForm):
    """Images under names of their own, inside."""

    images: tuple[Images, ...] = ("embed",)

    def column_names(self, images: Images, captions: int) -> tuple[str, tuple[str, ...]]:
        return MEMBER, ("text",)


def description(target: Target, record: Record) -> bytes:
    """What the JSON beside an image in an archive holds.

    Raises:
        ConvertError: More than a reader takes.
    """
    data = to_json(target.columns.values(record.row)).encode("utf-8")
    if len(data) > _MAX_TEXT:
        raise ConvertError(
            f"{record.row.id}: its captions and columns are {len(data):,} bytes of JSON, and archives are read with up "
            f"to {_MAX_TEXT:,} beside an image; leave columns out, or choose another form"
        )
    return data
