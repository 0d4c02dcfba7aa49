"""The default of `train.output_dir`."""

from __future__ import annotations

from pathlib import Path

from calotype.config.config import Config
from calotype.config.dataset import DatasetConfig
from calotype.config.inputs import source_name

__all__ = ["default_output"]


def default_output(config: Config, name: str | None, *, method: str | None) -> str:
    """Return the name of a run's folder, in the current one: `photos-lora`, or `photos-full` for a full fine-tune.

    Args:
        config: The config.
        name: Name of the config's file without its extension; None uses the dataset's name.
        method: `train.method`.
    """
    if name is None and isinstance(config.dataset, DatasetConfig):
        name = Path(source_name(config).partition(",")[0]).expanduser().resolve().stem
    return f"{name or 'output'}-{method if method == 'full' else 'lora'}"
