"""`Source`: the dataset under review, with all rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from calotype.config import Config
from calotype.config.dataset import MANIFEST_OPTIONS, DatasetConfig
from calotype.config.inputs import source_name
from calotype.editing import Captions, CaptionState, open_captions
from calotype.errors import EditError
from calotype.images import ImageReader
from calotype.manifest import Manifest, load_manifest
from calotype.manifest.folders.named_splits import ALL
from calotype.types import ImageRef

if TYPE_CHECKING:
    from calotype.data.dataset import TextToImageDataset

__all__ = ["LoadedRows", "Source", "open_source", "pixels_dataset"]

_OTHER_SIDES: Final = frozenset({"validation", "validation_seed"})


_OPTIONS_OF_ROWS: Final = frozenset({*MANIFEST_OPTIONS, "include"})


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedRows:
    """All rows of a dataset."""

    ids: list[str]
    refs: list[ImageRef]
    states: list[CaptionState] | None
    """None: the captions are in files beside the images, and have not been read."""
    root: Path
    """The folder that ids are relative to."""
    kind: str
    """The format of the dataset."""


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

    def load(self) -> LoadedRows:
        """Load all rows, with their captions unless these are in files beside the images.

        Raises:
            ManifestError: They can't be read.
        """
        captions = self.captions
        if captions is not None and captions.one_row_per_image and not self._given() & _OPTIONS_OF_ROWS:
            ids, root = captions.ids(), str(captions.root)  # those of the manifest
            refs = [ImageRef(name=id, path=f"{root}/{id}") for id in ids]
            return LoadedRows(ids=ids, refs=refs, states=None, root=captions.root, kind="folder")
        manifest = self.manifest()
        return LoadedRows(
            ids=manifest.ids.to_pylist(),
            refs=manifest.refs(),
            states=self._states(manifest),
            root=manifest.root,
            kind=str(manifest.describe()["format"]),
        )

    def reader(self) -> ImageReader:
        """Return the reader of the dataset's images.

        Raises:
            ConfigError: An option of the dataset is wrong.
        """
        if self._given() <= _OPTIONS_OF_ROWS:
            return ImageReader()  # no option can be wrong, and torch is not imported
        return pixels_dataset(self.config, self.manifest()).reader

    def _given(self) -> frozenset[str]:
        return frozenset(self.config.our_dataset().given()) - {"path", "source", "model", "tokenizers"}

    def _states(self, manifest: Manifest) -> list[CaptionState]:
        """Return the captions of each row; rows that can't be edited have a problem."""
        ids, captions = manifest.ids.to_pylist(), manifest.captions.to_pylist()
        loaded = dict(zip(ids, captions, strict=True))
        found = self.captions.read(loaded=loaded) if self.captions is not None else {}
        problem = None if self.captions is None else "Its captions are read-only: no row on disk has this id."
        rows = zip(ids, captions, strict=True)
        return [found[id] if id in found else _as_read(own, problem) for id, own in rows]


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
    from calotype.data.build import build_dataset

    section = config.our_dataset("reviewed")
    kept = {key: value for key, value in section.given().items() if key not in _OPTIONS_OF_ROWS}
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
