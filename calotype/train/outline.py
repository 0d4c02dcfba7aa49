"""What a run is going to do, known before torch is imported: method, model, images, captions, steps. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.config import Config
from calotype.config.component import Component
from calotype.config.dataset import DatasetConfig
from calotype.config.inputs import source_name
from calotype.config.train import TrainConfig
from calotype.terminal import visible

if TYPE_CHECKING:
    from calotype.manifest import Manifest

__all__ = ["outline", "outline_of_rows", "training_rows"]


def outline(config: Config, options: TrainConfig) -> Iterator[str]:
    """Yield lines about a run, by its config alone.

    Args:
        config: The config.
        options: Its `train` section.
    """
    what = "the whole network" if options.method == "full" else f"a LoRA (rank {options.lora_rank})"
    model = config.any_model or (config.encodings.model if config.encodings is not None else None)
    yield f"Training {what} of {_short(model)}"
    yield f"  result    {_short(options.output_dir)}"


def training_rows(config: Config) -> Manifest | None:
    """Load the rows to train on; None if the dataset is a component.

    Raises:
        ConfigError: As for `load_rows`.
        ManifestError: As for `load_rows`.
    """
    from calotype.data.rows import load_rows
    from calotype.transforms import CaptionTransform

    section = config.sides()[0].dataset
    if not isinstance(section, DatasetConfig):
        return None
    return load_rows(section, CaptionTransform.from_config(section.caption_transform, where="caption_transform"))


def outline_of_rows(rows: Manifest, config: Config, options: TrainConfig) -> Iterator[str]:
    """Yield lines about the images of a run, and how often each is seen.

    Args:
        rows: What `training_rows` returned.
        config: The config.
        options: Its `train` section.
    """
    found = rows.describe()
    images = round(found["shown_per_epoch"])
    yield f"  images    {found['rows']:,} in {_short(source_name(config))}; {_captions(found)}"
    batch = config.loader.batch_size if config.loader is not None and not isinstance(config.loader, Component) else 1
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    shown = options.max_steps * batch * options.gradient_accumulation_steps * ranks
    parts = [f"{batch:,} image{'s' if batch > 1 else ''}"]
    parts += [f"{options.gradient_accumulation_steps} batches"] if options.gradient_accumulation_steps > 1 else []
    parts += [f"{ranks} GPUs"] if ranks > 1 else []
    times = shown / images if images else 0.0
    yield f"  steps     {options.max_steps:,} of {' × '.join(parts)}: each image is seen {_times(times)}"


def _short(name: str | Path | None) -> str:
    """Return a name, and a path as it is seen from the current folder."""
    text = str(name)
    if Path(text).is_absolute() and Path(text).is_relative_to(Path.cwd()):
        text = str(Path(text).relative_to(Path.cwd()))
    return visible(text, 64)


def _captions(found: dict[str, Any]) -> str:
    missing = found["without_caption"]
    if not missing:
        return "all have captions"
    if missing == found["rows"]:
        return "none has a caption"
    return f"{missing:,} have no caption"


def _times(count: float) -> str:
    return "once" if round(count, 1) == 1 else f"{count:,.0f} times" if count >= 10 else f"{count:.1f} times"
