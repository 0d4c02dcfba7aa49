"""The folder of a run, where `output_dir` does not name it. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from calotype.config import Config
from calotype.config.dataset import DatasetConfig
from calotype.config.inputs import source_name
from calotype.errors import ConfigError

__all__ = ["RUN_FOLDERS", "check_old_default", "default_output"]

RUN_FOLDERS: Final = ("checkpoints", "logs", "samples")
"""The folders that a run makes in it."""

_OLD_DEFAULT: Final = Path("output")
"""What it was for every run once."""


def default_output(config: Config, name: str | None, *, method: str | None) -> str:
    """The name of a run's folder, in the current one: `photos-lora`, or `photos-full` for a full fine-tune.

    Args:
        config: The config.
        name: Of its file, without the ending; None where there is none: then the dataset's.
        method: `train.method`.
    """
    if name is None and isinstance(config.dataset, DatasetConfig):
        name = Path(source_name(config).partition(",")[0]).expanduser().resolve().stem
    return f"{name or 'output'}-{method if method == 'full' else 'lora'}"


def check_old_default(output: Path) -> None:
    """Refuses to begin anew where `--resume` may mean a run in the folder that was every run's default.

    Raises:
        ConfigError: `output` has no checkpoints and the old default has.
    """
    there = sorted(path.name for path in (_OLD_DEFAULT / "checkpoints").glob("step-*"))
    if there and not any((output / "checkpoints").glob("step-*")):
        raise ConfigError(
            f"--resume: {output} has no checkpoint, and {_OLD_DEFAULT} has {there[-1]}: runs without output_dir were "
            f"written there before. output_dir={_OLD_DEFAULT} goes on with it, output_dir={output} begins anew"
        )
