"""`train_config`: trains what a config describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from calotype.errors import ConfigError, MissingDependencyError
from calotype.recipes.options import TrainOptions

if TYPE_CHECKING:
    from calotype.recipes.report import Progress, TrainReport

__all__ = ["train_config"]


def train_config(
    config: Mapping[str, Any],
    *,
    resume: bool = False,
    show: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda text: None,
) -> TrainReport:
    """Trains by a config's `train` section, on its dataset through its `encodings`.

    Args:
        config: What `load_config` gave.
        resume: Go on from the last checkpoint, if there is one.
        show: Called every `log_every` steps, on the main process.
        tell: Likewise with what else there is to say.

    Raises:
        ConfigError: The config is wrong, or the model is none that is trained here.
        MissingDependencyError: accelerate, diffusers or peft is not installed.
        StoreError: Something is not encoded yet, and not to be encoded on the fly.
    """
    section = config.get("train") or {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"config: 'train' must be a mapping such as {{max_steps: 1000}}, and is {section!r}")
    options = TrainOptions.of(section)
    try:
        from calotype.recipes.train import make_accelerator, train
    except ModuleNotFoundError as error:
        if error.name not in ("accelerate", "safetensors"):
            raise
        raise MissingDependencyError(error.name, extra="train", purpose="to train") from error
    from calotype.config import build_training

    accelerator = make_accelerator(options, device=(config.get("loader") or {}).get("device"))
    models, loader, validation = build_training(config, device=str(accelerator.device))
    try:
        return train(accelerator, loader, models, options, validation=validation, resume=resume, show=show, tell=tell)
    finally:
        loader.close()
        if validation is not None:
            validation.close()
