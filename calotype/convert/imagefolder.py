"""Hugging Face's imagefolder: images, and a `metadata.jsonl` that names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from calotype.convert.form import Finding, Images
from calotype.convert.jsonl import JsonLines
from calotype.manifest.manifest import JSON_FIELD, Manifest

__all__ = ["ImageFolder"]


class ImageFolder(JsonLines):
    """A folder that `datasets.load_dataset("imagefolder", data_dir=…)` reads as it is."""

    name = "imagefolder"
    images: tuple[Images, ...] = ("copy", "link")

    def findings(self, manifest: Manifest, names: Sequence[str], captions: int) -> Iterator[Finding]:
        yield from super().findings(manifest, names, captions)
        mixed = [field.name for field in manifest.extras.schema if field.metadata == JSON_FIELD]
        if mixed:
            yield Finding(
                level="note",
                kind="mixed_types",
                count=len(mixed),
                text=f"{', '.join(map(repr, mixed))} hold values of several types, at which `datasets` stops",
            )
