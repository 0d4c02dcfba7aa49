"""`FORMS`: all output forms by name."""

from __future__ import annotations

from typing import Final

from calotype.convert.csv import Csv
from calotype.convert.form import Form
from calotype.convert.hf import SavedDataset
from calotype.convert.jsonl import ImageFolder, JsonLines
from calotype.convert.kohya import Kohya
from calotype.convert.lmdb import Lmdb
from calotype.convert.parquet import Parquet
from calotype.convert.webdataset import WebDataset

__all__ = ["FORMS"]

_ALL: Final[tuple[Form, ...]] = (
    ImageFolder(),
    JsonLines(),
    Csv(),
    Parquet(),
    WebDataset(),
    Lmdb(),
    Kohya(),
    SavedDataset(),
)

FORMS: Final[dict[str, Form]] = {form.name: form for form in _ALL}
"""Name → form."""
