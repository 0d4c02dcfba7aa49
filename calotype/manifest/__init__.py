"""What images, which captions: folders, data files, archives and hub datasets become one sequence of rows."""

from __future__ import annotations

from calotype.manifest.load import load_manifest
from calotype.manifest.manifest import Manifest

__all__ = ["Manifest", "load_manifest"]
