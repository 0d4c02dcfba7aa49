"""`Source`: the dataset under review, with all rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from calotype.config import Config
from calotype.config.dataset import MANIFEST_OPTIONS, DatasetConfig
from calotype.config.inputs import source_name
from calotype.data.build import build_dataset
from calotype.data.dataset import TextToImageDataset
from calotype.editing import Captions, CaptionState, open_captions
from calotype.errors import EditError
from calotype.manifest import Manifest, load_manifest
from calotype.manifest.folders.named_splits import ALL

__all__ = ["Source", "open_source", "pixels_dataset"]

_OTHER_SIDES: Final = frozenset({"validation", "validation_seed"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A dataset under review."""

    config: Config
    file: Path | None
    """The YAML it came from; None for a bare folder or data file."""
    name: str
    captions: Captions | None
    """None where captions are read-only."""
    why_not: str | None
    """Why captions are read-only."""

    def manifest(self) -> Manifest:
        """Load all rows: also rejected ones, those of the validation split, and those without captions.

        Raises:
            ManifestError: It can't be read.
        """
        section = self.config.our_dataset()
        options = section.manifest_options
        if section.validation:
            options.pop("split", None)  # with `validation`, it selects a side of the held-out split
        options = {key: value for key, value in options.items() if key not in _OTHER_SIDES}
        if self.captions is not None and options.get("split") is None:
            options["split"] = ALL
        lenient = {"missing_captions": "empty", "on_error": "skip", "keep_rejected": True}
        return load_manifest(section.origin, **options | lenient)

    def states(self, manifest: Manifest) -> list[CaptionState]:
        """Return the captions of each row; rows that can't be edited have a problem."""
        found = self.captions.read() if self.captions is not None else {}
        problem = None if self.captions is None else "Its captions are read-only: no row on disk has this id."
        rows = zip(manifest.ids.to_pylist(), manifest.captions.to_pylist(), strict=True)
        return [found[id] if id in found else _as_read(captions, problem) for id, captions in rows]


def open_source(config: Config, *, file: Path | None) -> Source:
    """Open the dataset of a config.

    Args:
        config: The config.
        file: The YAML file of the config; None without one.

    Raises:
        ConfigError: The dataset is a `_component_` of another class.
        ManifestError: It can't be read.
    """
    section = config.our_dataset("reviewed")
    captions, why_not = None, None
    try:
        captions = _open_captions(section)
    except EditError as error:
        why_not = str(error)
    name = Path(source_name(config)).expanduser().absolute().name
    return Source(config=config, file=file, name=name, captions=captions, why_not=why_not)


def pixels_dataset(config: Config, manifest: Manifest, **options: Any) -> TextToImageDataset:
    """Build the dataset of a config on a loaded manifest, without tokenizers.

    Captions may contain `{trigger}` without a trigger in the config: they are reviewed before the config is written.

    Args:
        config: The config.
        manifest: The rows of the dataset.
        **options: Options of the dataset that replace the config's.

    Raises:
        ConfigError: An option is wrong.
    """
    section = config.our_dataset("reviewed")
    kept = {key: value for key, value in section.given().items() if key not in {*MANIFEST_OPTIONS, "include"}}
    pixels = config.updated(dataset=kept).without_tokens()
    return build_dataset(pixels.with_dataset(**options | {"on_error": "skip"}), manifest=manifest)


def _open_captions(section: DatasetConfig) -> Captions:
    for name in ("data_files", "split"):
        if getattr(section, name) is not None and not section.validation:
            raise EditError(f"captions of a dataset with `{name}` are read-only here: open the data file itself")
    return open_captions(section.origin, **section.caption_place())


def _as_read(captions: list[str], problem: str | None) -> CaptionState:
    return CaptionState(
        captions=tuple(text for text in captions if text.strip()), rejected=False, version="", problem=problem
    )
