"""Reads folders, data files, archives and hub datasets into one sequence of rows: images with their captions."""

from __future__ import annotations

from calotype.manifest.load import load_manifest
from calotype.manifest.manifest import Manifest

__all__ = ["Manifest", "load_manifest"]
