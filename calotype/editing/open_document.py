"""`open_document`: opens a data file by its form, to change captions in it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from calotype.editing.delimited_document import DelimitedDocument
from calotype.editing.document import Document
from calotype.editing.json_document import open_json
from calotype.errors import EditError, ManifestError
from calotype.manifest.reading import Reading

__all__ = ["open_document"]

_EDITABLE: Final = {".jsonl", ".ndjson", ".json", ".csv", ".tsv"}


def open_document(file: Path, reading: Reading) -> Document:
    """Open the document of a data file.

    Raises:
        EditError: Its form can't be changed in place.
        ManifestError: It can't be read.
    """
    suffix = file.suffix.lower()
    if suffix not in _EDITABLE or not file.is_file():
        raise EditError(
            f"{file}: captions in {suffix[1:] or 'this form'} can't be changed in place; `calotype convert {file} "
            "NEW_FOLDER --to jsonl` makes a data file of it, whose captions can"
        )
    if file.stat().st_size == 0:
        raise ManifestError(f"{file}: the file is empty")
    return DelimitedDocument(file, reading) if suffix in (".csv", ".tsv") else open_json(file, reading)
