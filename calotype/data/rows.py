"""`load_rows`: the rows of a config's `dataset` section. Needs no torch."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from calotype.config.dataset import DatasetConfig
from calotype.core.placeholders import PLACEHOLDER, TRIGGER_PLACEHOLDERS
from calotype.errors import ConfigError
from calotype.ledger import Ledger
from calotype.manifest import Manifest, load_manifest
from calotype.manifest.unused_captions import require_captions
from calotype.transforms import CaptionTransform

__all__ = ["load_rows"]


def load_rows(options: DatasetConfig, captions: CaptionTransform, *, ledger: Ledger | None = None) -> Manifest:
    """Load the rows of a dataset, and check that each image can get a caption.

    Args:
        options: The section; a `path` that is a `Manifest` is returned as it is.
        captions: The section's caption transform.
        ledger: Collects an entry for each bad row.

    Raises:
        ConfigError: An option is invalid, or captions have a placeholder and there is no trigger.
        ManifestError: The data can't be read, or images have no caption.
    """
    options.check_origin()
    # With a trigger or template every image has a text, so captions may be missing; but the user did not say so.
    implied = options.missing_captions is None and bool(captions.trigger or captions.template)
    given, path = options.manifest_options, options.origin
    if not isinstance(path, Manifest):
        missing = "empty" if implied else options.missing_captions or "error"
        manifest = load_manifest(path, missing_captions=missing, on_error=options.on_error, ledger=ledger, **given)
        if implied:
            require_captions(manifest)
    elif given:
        raise ConfigError(f"{', '.join(given)}: come too late for a path that is a manifest, loaded already")
    else:
        manifest = path
    _check_placeholders(manifest, captions, options.on_error)
    return manifest


def _check_placeholders(manifest: Manifest, transform: CaptionTransform, on_error: str) -> None:
    """Refuse captions with a placeholder if no trigger is set: the model would learn the placeholder.

    Args:
        manifest: The rows.
        transform: The caption transform.
        on_error: `raise`, or anything else to add a ledger entry for each such image.

    Raises:
        ConfigError: There are some, under `on_error="raise"`.
    """
    if transform.trigger is not None or transform.custom:
        return
    waiting = pc.unique(pc.list_parent_indices(manifest.captions).filter(_has_placeholder(manifest.captions)))
    if not len(waiting):
        return
    ids = manifest.ids.take(waiting).to_pylist()
    if on_error == "raise":
        raise ConfigError(
            f"caption_transform: the captions of {len(ids):,} of {len(manifest):,} images have {PLACEHOLDER} in them "
            f"({ids[0]!r} is the first), and there is no trigger to put there; set caption_transform.trigger"
        )
    noted = {entry.id for entry in manifest.ledger if entry.kind == "placeholder"}
    for id in (id for id in ids if id not in noted):  # several datasets may share one manifest
        manifest.ledger.add("placeholder", id, f"a caption has {PLACEHOLDER} in it, and there is no trigger")


def _has_placeholder(captions: pa.ChunkedArray) -> Any:
    return pc.match_substring_regex(pc.list_flatten(captions), TRIGGER_PLACEHOLDERS)
