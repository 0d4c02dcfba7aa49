"""Edits captions and rejected flags in place: in files beside images, metadata files and data files; with backups."""

from __future__ import annotations

from calotype.editing.captions import Captions, CaptionState, Change, Written
from calotype.editing.open import open_captions
from calotype.editing.work import Work

__all__ = ["CaptionState", "Captions", "Change", "Work", "Written", "open_captions"]
