"""Reads folders, data files, archives and hub datasets into one sequence of rows: images with their captions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calotype.core.lazy import exports

if TYPE_CHECKING:
    from calotype.manifest.load import load_manifest
    from calotype.manifest.manifest import Manifest

__all__ = ["Manifest", "load_manifest"]

__getattr__ = exports(__name__, {"Manifest": ".manifest", "load_manifest": ".load"})
