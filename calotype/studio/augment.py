"""`Augmentations`: samples of the training pipeline with other options, and writing these options to the config."""

from __future__ import annotations

import base64
import difflib
import io
import json
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xxhash
import yaml
from PIL import Image

from calotype.config import Config, load_config, read_config
from calotype.config.caption_transform import CaptionTransformConfig
from calotype.config.img_transform import ImageTransformConfig
from calotype.config.instantiate import COMPONENT
from calotype.config.section import Section
from calotype.core.file_state import FileState
from calotype.editing.hidden_folder import copy_beside
from calotype.editing.replacement import digest_of, replacing
from calotype.errors import CalotypeError, ConfigError
from calotype.manifest import Manifest
from calotype.studio.controls import controls_of
from calotype.studio.source import Source, pixels_dataset
from calotype.studio.thumbnails import stamp
from calotype.studio.tokens import TokenCounter
from calotype.studio.yaml_edit import edit_yaml, lost_comments
from calotype.types import SampleKey

if TYPE_CHECKING:
    from calotype.data.dataset import TextToImageDataset
    from calotype.previews.kept_reader import KeptReader

__all__ = ["SECTIONS", "Augmentations", "ConfigChangedError"]

SECTIONS: Final[Mapping[str, type[Section]]] = {
    "img_transform": ImageTransformConfig,
    "caption_transform": CaptionTransformConfig,
}
"""The options of a dataset that the page can change, and their schema."""
_CODE: Final = (COMPONENT, "custom")
"""Options that name code. The page can't set them; the config's values are preserved."""


class ConfigChangedError(CalotypeError):
    """The config file was changed by another program."""


class Augmentations:
    """The backend of the augmentation panel. Thread-safe.

    Args:
        source: Has the config that options are read from and written to.
        counter: Counts the tokens of captions.
    """

    def __init__(self, source: Source, counter: TokenCounter) -> None:
        self._source, self._counter = source, counter
        self._lock = threading.Lock()
        self._last: tuple[str, TextToImageDataset] | None = None
        self._kept: tuple[int, FileState | None, KeptReader] | None = None

    @cached_property
    def _manifest(self) -> Manifest:
        """The rows: sampling depends on a row's index."""
        return self._source.manifest()

    @cached_property
    def _indices(self) -> dict[str, int]:
        """Id → index in the manifest."""
        return {id: index for index, id in enumerate(self._manifest.ids.to_pylist())}

    def options(self) -> dict[str, Any]:
        """Return the options in the config."""
        config = self._config()
        section = config.our_dataset("reviewed")
        found = {name: section.to_mapping().get(name) or {} for name in SECTIONS}
        plain = {name: one if isinstance(one, Mapping) else {} for name, one in found.items()}
        locked = [name for name, one in found.items() if not isinstance(one, Mapping) or COMPONENT in one]
        locked += [f"{name}.custom" for name, one in plain.items() if "custom" in one and name not in locked]
        return {
            "config": str(self._source.file) if self._source.file is not None else None,
            "version": self._version(),
            "target": str(self._target()),
            "resolution": section.resolution,
            "model": config.any_model,
            "locked": locked,
            "controls": {name: controls_of(section) for name, section in SECTIONS.items()},
            **{name: {key: one[key] for key in one if key not in _CODE} for name, one in plain.items()},
        }

    def draw(
        self,
        id: str,
        captions: Sequence[str],
        *,
        options: Mapping[str, Mapping[str, Any]],
        epochs: Sequence[int],
        seed: int | None = None,
    ) -> dict[str, Any]:
        """Return samples of one image as training sees them.

        Args:
            id: Id of the row.
            captions: The row's current captions.
            options: `img_transform` and `caption_transform` from the page.
            epochs: Epochs to sample, one sample per epoch.
            seed: Seed of the sampling. Default: the config's.

        Raises:
            ConfigError: An option is invalid, or names code.
            ImageError: The image can't be read.
            IndexError: The row was added after the rows were loaded for the first sample.
        """
        if (index := self._indices.get(id)) is None:
            raise IndexError("the image was added since the first sample: restart calotype studio to sample this one")
        # Imported here: they import torch, which a review needs for samples only.
        from calotype.data.pixel_cache import PixelCache
        from calotype.previews.gather import draw_sample

        # Build the dataset with these options, on a reader with the decoded image.
        dataset = self._dataset({name: self._merged(name, given) for name, given in options.items()})
        reader = self._reader(dataset, index)
        sampled = dataset.with_reader(reader).with_cache(
            None if dataset.pixel_cache is None else PixelCache(max_images=0)
        )
        # Sample image and caption for each epoch.
        draws = []
        for epoch in epochs:
            key = SampleKey(index, epoch, seed=seed)
            drawn = draw_sample(sampled, reader, self._sized(sampled, reader, key))
            caption = dataset.caption_transform.draw(captions or ("",), key, dataset.seed if seed is None else seed)
            draws.append(
                {
                    "epoch": epoch,
                    "image": _as_data(drawn.image),
                    "height": drawn.geometry.target_size[0],
                    "width": drawn.geometry.target_size[1],
                    "box": list(drawn.geometry.box),
                    "rotate": drawn.geometry.rotate,
                    "flip": list(drawn.geometry.flip),
                    "caption": {
                        "text": caption.text,
                        "raw": caption.raw,
                        "dropped": caption.dropped,
                        "parts": [{"text": part.text, "state": part.state} for part in caption.parts],
                    },
                    "tokens": list(self._counter.counts([caption.text])[0]),
                }
            )
        height, width = reader.any.original_size
        return {"original": {"height": height, "width": width}, "draws": draws}

    def save(self, options: Mapping[str, Mapping[str, Any]], *, version: str | None, dry_run: bool) -> dict[str, Any]:
        """Write options to the config, or preview the change.

        Args:
            options: `img_transform` and `caption_transform` from the page.
            version: Version of the config that the page has, from `options`.
            dry_run: Preview the change without writing it.

        Raises:
            ConfigChangedError: The file has changed since.
            ConfigError: An option is invalid, or the file can't be changed this way.
            EditError: The file can't be written.
        """
        with self._lock:
            target = self._target()
            if self._version() != version:
                raise _changed(target)
            merged = {name: self._merged(name, given) for name, given in options.items()}
            self._dataset(merged)
            data = target.read_bytes() if version is not None else None
            before = data.decode() if data is not None else ""
            after = self._edited(before, merged) if before else self._new(merged)
            backup = None
            if not dry_run and after != before:
                backup = copy_beside(target) if before else None
                found = {target: None if data is None else digest_of(data)}
                with replacing({target: after.encode()}, found, None) as new:
                    if not new.put([target]):
                        raise _changed(target)
            diff = difflib.unified_diff(
                before.splitlines(keepends=True), after.splitlines(keepends=True), f"{target} (now)", str(target)
            )
            return {
                "target": str(target),
                "text": after,
                "diff": "".join(diff),
                "lost": lost_comments(before, after),
                "backup": str(backup) if backup is not None else None,
                "version": self._version(),
                "written": not dry_run and after != before,
            }

    def _edited(self, text: str, options: Mapping[str, Any]) -> str:
        found = load_config(self._target()).get("dataset") or {}
        return edit_yaml(text, {("dataset", name): (found.get(name), wanted) for name, wanted in options.items()})

    def _new(self, options: Mapping[str, Any]) -> str:
        """Return a config for a dataset without one."""
        config = self._source.config.to_mapping()
        dataset: dict[str, Any] = config.pop("dataset")
        for name in ("path", "source"):
            if isinstance(dataset.get(name), str) and Path(dataset[name]).expanduser().exists():
                dataset[name] = str(Path(dataset[name]).expanduser().absolute())
        text: str = yaml.safe_dump(
            config | {"dataset": dataset | {name: some for name, some in options.items() if some}},
            sort_keys=False,
            allow_unicode=True,
            default_flow_style=False,
        )
        return text

    def _target(self) -> Path:
        if self._source.file is not None:
            return self._source.file.expanduser().absolute()
        return Path(f"{Path(self._source.name).stem}.yaml").absolute()

    def _version(self) -> str | None:
        try:
            return xxhash.xxh3_64_hexdigest(self._target().read_bytes())
        except OSError:
            return None

    def _config(self) -> Config:
        return self._source.config if self._source.file is None else read_config(self._source.file)

    def _merged(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the page's options with the code options of the config."""
        section = self._config().our_dataset("reviewed").to_mapping().get(name)
        if section is not None and (not isinstance(section, Mapping) or COMPONENT in section):
            raise ConfigError(f"{name}: the config uses a component; edit the file itself")
        if (path := _code(given)) is not None:
            raise ConfigError(
                f"{name}.{path}: options that name code can't be set from the page; edit the config itself"
            )
        return dict(given) | {key: section[key] for key in _CODE if section is not None and key in section}

    def _dataset(self, options: Mapping[str, Any]) -> TextToImageDataset:
        wanted = json.dumps(options, sort_keys=True, default=repr)
        last = self._last
        if last is None or last[0] != wanted:
            last = self._last = (wanted, pixels_dataset(self._source.config, self._manifest, **options))
        return last[1]

    def _reader(self, dataset: TextToImageDataset, index: int) -> KeptReader:
        """Return a reader with one decoded image, which is reused while its options change."""
        ref = self._manifest[index].image
        state = stamp(ref)
        kept = self._kept
        from calotype.previews.kept_reader import KeptReader

        if kept is None or kept[:2] != (index, state):
            reader = KeptReader(dataset.reader, ref)
            reader.read(ref)
            kept = self._kept = index, state, reader
        return kept[2]

    def _sized(self, sampled: TextToImageDataset, reader: KeptReader, key: SampleKey) -> SampleKey:
        """Return the key with the bucket of the image."""
        if sampled.buckets is None:
            return key
        bucket = int(sampled.buckets.assign(np.array([reader.any.original_size]))[0])
        return key._replace(size=sampled.buckets.sizes[bucket])


def _changed(target: Path) -> ConfigChangedError:
    return ConfigChangedError(f"{target} has changed meanwhile, or is new: check it, then try again")


def _code(options: Mapping[str, Any], path: str = "") -> str | None:
    """Return the path of an option that names code, at any depth."""
    for key, value in options.items():
        if key in _CODE:
            return f"{path}{key}"
        inner = value if isinstance(value, list) else [value]
        for one in inner:
            if isinstance(one, Mapping) and (found := _code(one, f"{path}{key}.")) is not None:
                return found
    return None


def _as_data(pixels: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=82, method=1)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
