"""Captions changed where they are: files beside images, metadata files and data files; rejected flags; backups."""

from __future__ import annotations

from calotype.editing.captions import Captions, CaptionState, Change, Written
from calotype.editing.open import open_captions

__all__ = ["CaptionState", "Captions", "Change", "Written", "open_captions"]
