"""When something happens in a run: the learning rate of each step, and what is due at it."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from calotype.errors import ConfigError

__all__ = ["ScheduleOptions", "is_due", "make_schedule"]


class ScheduleOptions(Protocol):
    """What a recipe's options say of its learning rate."""

    @property
    def lr_scheduler(self) -> str: ...

    @property
    def lr_warmup_steps(self) -> int: ...

    @property
    def max_steps(self) -> int: ...


def make_schedule(library: str, options: ScheduleOptions, optimizer: Any, *, section: str) -> Any:
    """The learning rate's schedule, by a library's `get_scheduler`.

    Args:
        library: The module that has it: `diffusers.optimization` or `transformers`.
        options: Name the schedule.
        optimizer: Whose learning rate it is.
        section: Of the config, for errors: `train`.

    Raises:
        ConfigError: There is no such schedule, or it takes more than the options can say.
    """
    module: Any = importlib.import_module(library)
    names = [kind.value for kind in module.SchedulerType]
    if options.lr_scheduler not in names:
        raise ConfigError(f"{section}.lr_scheduler: found {options.lr_scheduler!r}, expected one of {', '.join(names)}")
    try:
        return module.get_scheduler(
            options.lr_scheduler,
            optimizer,
            num_warmup_steps=options.lr_warmup_steps,
            num_training_steps=options.max_steps,
        )
    except (TypeError, ValueError) as error:  # some, as piecewise_constant, have rules of their own
        raise ConfigError(
            f"{section}.lr_scheduler: {options.lr_scheduler} takes more than can be said here: {error}"
        ) from error


def is_due(step: int, every: int) -> bool:
    """Whether what happens every so many steps does at this one; 0 is never."""
    return every > 0 and step % every == 0
