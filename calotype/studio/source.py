"""What is reviewed: a folder, a data file or a config, opened so that nothing of it is left out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from calotype.components import COMPONENT
from calotype.config import build_dataset
from calotype.dataset import TextToImageDataset
from calotype.editing import Captions, CaptionState, open_captions
from calotype.errors import ConfigError, EditError
from calotype.inputs import source_name
from calotype.manifest import Manifest, load_manifest
from calotype.manifest.named_splits import ALL

__all__ = ["Source", "open_source", "pixels_dataset"]

_BUILDER: Final = "calotype.text_to_image_dataset"
_MANIFEST_OPTIONS: Final = frozenset(inspect.signature(load_manifest).parameters)
_EDITED: Final = {"columns": "columns", "column_map": "columns", "root": "root", "image_dir": "root"} | {
    name: name for name in ("recursive", "exclude", "caption_lines", "caption_suffix", "delimiter")
}
"""Options of `load_manifest` that `open_captions` has too, by their other name."""
_OTHER_SIDES: Final = frozenset({"validation", "validation_seed"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A dataset to be reviewed."""

    config: Mapping[str, Any]
    """What `load_config` gave."""
    file: Path | None
    """The YAML it came from; None for a bare folder or data file."""
    name: str
    captions: Captions | None
    """None where they can only be read."""
    why_not: str | None
    """Why that is so."""

    def manifest(self) -> Manifest:
        """All of its pictures as of now: rejected ones, held out ones, and those without a caption too.

        Raises:
            ManifestError: It can't be read.
        """
        options = {key: value for key, value in _section(self.config).items() if key in _MANIFEST_OPTIONS}
        if options.get("validation"):
            options.pop("split", None)  # a side of what is held out here
        options = {key: value for key, value in options.items() if key not in _OTHER_SIDES}
        if self.captions is not None and options.get("split") is None:
            options["split"] = ALL
        return load_manifest(**options | {"missing_captions": "empty", "on_error": "skip", "keep_rejected": True})

    def states(self, manifest: Manifest) -> list[CaptionState]:
        """What each row's captions are, as far as they can be changed; else as they were read."""
        found = self.captions.read() if self.captions is not None else {}
        problem = None if self.captions is None else "Its captions can't be changed: nothing on the disk has this id."
        rows = zip(manifest.ids.to_pylist(), manifest.captions.to_pylist(), strict=True)
        return [found[id] if id in found else _as_read(captions, problem) for id, captions in rows]


def open_source(config: Mapping[str, Any], *, file: Path | None) -> Source:
    """Opens the dataset of a config.

    Args:
        config: What `load_config` gave.
        file: The YAML it came from, if it did.

    Raises:
        ConfigError: Its dataset is another `_component_` than ours.
        ManifestError: It can't be read.
    """
    options = _section(config)
    if options.get(COMPONENT, _BUILDER) != _BUILDER:
        raise ConfigError(f"dataset: {options[COMPONENT]} can't be reviewed; expected a dataset of {_BUILDER}")
    captions, why_not = None, None
    try:
        captions = _open_captions(options)
    except EditError as error:
        why_not = str(error)
    name = Path(source_name(config)).expanduser().absolute().name
    return Source(config=config, file=file, name=name, captions=captions, why_not=why_not)


def pixels_dataset(config: Mapping[str, Any], manifest: Manifest, **options: Any) -> TextToImageDataset:
    """The dataset of a config over a manifest that is loaded already, without tokenizers.

    Captions may hold `{trigger}` while no config says what that is: they are reviewed before one is written.

    Args:
        config: What `load_config` gave.
        manifest: Its rows.
        **options: Options of the dataset that replace the config's.

    Raises:
        ConfigError: An option is wrong.
    """
    kept = {key: value for key, value in _section(config).items() if key not in _MANIFEST_OPTIONS | {"include"}}
    kept = {key: value for key, value in (kept | options).items() if value is not None}
    dataset: TextToImageDataset = build_dataset(
        {
            "model": config.get("model"),
            "tokenizer": {COMPONENT: "calotype.PixelsTransform"},
            "dataset": kept | {"path": manifest, "on_error": "skip"},
        }
    )
    return dataset


def _section(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(config.get("dataset") or {})


def _open_captions(options: Mapping[str, Any]) -> Captions:
    for name in ("data_files", "split"):
        if options.get(name) is not None and not options.get("validation"):
            raise EditError(f"captions of a dataset with `{name}` are only read here: open the data file itself")
    path = options.get("path", options.get("source"))
    given = {_EDITED[key]: value for key, value in options.items() if key in _EDITED and value is not None}
    return open_captions(path, **given)


def _as_read(captions: list[str], problem: str | None) -> CaptionState:
    return CaptionState(
        captions=tuple(text for text in captions if text.strip()), rejected=False, version="", problem=problem
    )
