"""`open_source`: the rows and the image reader of the dataset to convert, from its config. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from calotype.config import Config
from calotype.config.inputs import check_outside
from calotype.images import ImageReader
from calotype.images.fetch import Fetcher
from calotype.manifest import Manifest, load_manifest
from calotype.manifest.unused_captions import require_captions

__all__ = ["open_source"]


def open_source(config: Config, destination: Path, *, to: str) -> tuple[Manifest, ImageReader]:
    """Load the rows of a config's dataset, and make the reader of its images.

    Rows without a caption are included; so are rejected rows, except for kohya, whose trainers can't leave them out.

    Args:
        config: What `read_config` returned.
        destination: Where the result will be.
        to: A name in `FORMS`.

    Raises:
        ConfigError: An option is wrong, or the destination is in a folder that the dataset is read from.
        ManifestError: The data can't be read.
    """
    options = config.our_dataset("converted")
    options.check_origin()
    check_outside(config, destination, option="destination", writes="the result")
    rows = options.manifest_options
    if to != "kohya":
        columns = "column_map" if "column_map" in rows else "columns"
        rows[columns] = {"rejected": None, **(rows.get(columns) or {})}
    missing = options.missing_captions
    manifest = load_manifest(options.origin, missing_captions=missing or "empty", on_error=options.on_error, **rows)
    if missing is None:
        require_captions(manifest)
    return manifest, ImageReader(fetcher=Fetcher.from_config(options))
