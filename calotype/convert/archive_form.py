"""`ArchiveForm`: the base of forms that store each image with a JSON text beside it."""

from __future__ import annotations

from calotype.convert.form import MEMBER, Images, Record, Target
from calotype.convert.jsonl import JsonForm, to_json
from calotype.errors import ConvertError
from calotype.manifest.archives.lmdb_walk import MAX_TEXT

__all__ = ["ArchiveForm", "description"]


class ArchiveForm(JsonForm):
    """A form whose images are members of an archive."""

    images: tuple[Images, ...] = ("embed",)

    def column_names(self, images: Images, captions: int) -> tuple[str, tuple[str, ...]]:
        return MEMBER, ("text",)


def description(target: Target, record: Record) -> bytes:
    """Return the JSON beside an image: its captions and columns.

    Raises:
        ConvertError: It is longer than readers accept.
    """
    data = to_json(target.columns.values(record.row)).encode("utf-8")
    if len(data) > MAX_TEXT:
        raise ConvertError(
            f"{record.row.id}: its captions and columns are {len(data):,} bytes of JSON; archives hold at most "
            f"{MAX_TEXT:,} for an image; leave columns out, or choose another form"
        )
    return data
