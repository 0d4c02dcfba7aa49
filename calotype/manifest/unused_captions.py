"""Reports files and columns that may hold captions and are not used; they are an error if no image has a caption."""

from __future__ import annotations

import posixpath
import re
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from calotype.errors import MissingCaptionError
from calotype.manifest.captions import is_text
from calotype.manifest.manifest import EXTRA, Manifest
from calotype.manifest.reading import Part, Reading

__all__ = [
    "UNUSED_CAPTIONS",
    "add_unused_captions",
    "has_captions",
    "may_be_captions",
    "note_other_columns",
    "require_captions",
    "unused_captions",
]

UNUSED_CAPTIONS: Final = "unused_captions"
"""Kind of the ledger entries."""
_UNRELATED: Final = re.compile(r"(?i)(?:readme|licen[cs]e|copying|requirements|changelog|install)\b")
"""Names of common text files that are not captions."""

_FEW: Final = 3
_MANY: Final = 12


def add_unused_captions(reading: Reading, where: str, reason: str) -> None:
    """Add a ledger entry for a file or column that may hold captions and is not used."""
    reading.ledger.add(UNUSED_CAPTIONS, where, reason)


def may_be_captions(kind: str, where: str) -> bool:
    """Whether a ledger entry is about a file or column that may hold captions and is not used."""
    return kind == UNUSED_CAPTIONS or (kind == "no_picture" and not _UNRELATED.match(posixpath.basename(where)))


def unused_captions(found: Manifest | Reading) -> list[str]:
    """Return one sentence for each reason why possible captions are not used."""
    by_reason: dict[str, list[str]] = {}
    for entry in found.ledger:
        if may_be_captions(entry.kind, entry.id):
            by_reason.setdefault(entry.reason, []).append(entry.id.removeprefix(f"{found.root}/"))
    return [f"{_few(where)}: {reason}" for reason, where in by_reason.items()]


def note_other_columns(file: str, part: Part, reading: Reading) -> None:
    """Report the columns of a data file without captions: one of them may hold captions."""
    if pc.any(pc.greater(pc.list_value_length(part.table["captions"]), 0)).as_py():
        return
    own = [field for field in part.table.schema if field.name.startswith(EXTRA)]
    texts = {
        field.name.removeprefix(EXTRA): pc.sum(pc.binary_length(part.table[field.name])).as_py() or 0
        for field in own
        if is_text(field.type) and not field.metadata
    }
    likely = max(texts, key=lambda name: texts[name]) if texts and max(texts.values()) else None
    if likely or any(field.metadata or pa.types.is_nested(field.type) for field in own):
        names = [field.name.removeprefix(EXTRA) for field in own]
        more = ", …" if len(names) > _MANY else ""
        how = f"Set columns.caption={likely}" if likely else "Put the captions into a text column such as caption"
        reason = f"no caption column. Found columns: {', '.join(names[:_MANY])}{more}. {how}"
        reading.note(f"{file.removeprefix(f'{reading.root}/')}: {reason}")
        add_unused_captions(reading, file, reason)


def _few(where: list[str]) -> str:
    more = f" and {len(where) - 1:,} more" if len(where) > 1 else ""
    return f"{where[0]}{more}"


def has_captions(captions: Any) -> bool:
    """Whether any row of a column of captions has a text that is not empty."""
    if pa.types.is_null(captions.type):
        return False
    return bool(pc.any(pc.greater(pc.binary_length(pc.list_flatten(captions)), 0)).as_py())


def require_captions(manifest: Manifest) -> None:
    """Require that possible captions are used, although missing ones are allowed.

    With `missing_captions='empty'`, for a trigger or template, a caption file or column that is not read would go
    unnoticed.

    Raises:
        MissingCaptionError: No image has a caption, but a file or column may hold some. The message has its name, and
            how to use it.
    """
    found = unused_captions(manifest)
    if found and not has_captions(manifest.captions):
        raise MissingCaptionError(
            f"none of the {len(manifest):,} images has a caption, and something that may hold captions is not used. "
            f"{'. '.join(found[:_FEW])}{' (more in the ledger)' if len(found) > _FEW else ''}. "
            "missing_captions='empty' continues without them"
        )
