"""The learning rate schedule, and the steps at which something is due."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch.optim.lr_scheduler import LambdaLR

from calotype.errors import ConfigError

__all__ = ["ScheduleOptions", "adopt_schedule", "check_schedule", "is_due", "make_schedule", "saves_left"]


class ScheduleOptions(Protocol):
    """The options of a learning rate schedule."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def lr_scheduler(self) -> str: ...

    @property
    def lr_warmup_steps(self) -> int: ...

    @property
    def max_steps(self) -> int: ...


def make_schedule(library: str, options: ScheduleOptions, optimizer: Any, *, section: str) -> Any:
    """Make a learning rate schedule by a library's `get_scheduler`.

    Args:
        library: The module of `get_scheduler`: `diffusers.optimization` or `transformers`.
        options: The options of the run.
        optimizer: The optimizer whose learning rate is scheduled.
        section: Name of the config's section in errors: `train`.

    Raises:
        ConfigError: There is no such schedule, or it needs further arguments.
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
    except (AttributeError, TypeError, ValueError) as error:  # piecewise_constant needs rules
        raise ConfigError(
            f"{section}.lr_scheduler: {options.lr_scheduler} needs arguments that are no options here: {error}"
        ) from error


def check_schedule(library: str, options: ScheduleOptions, *, section: str) -> None:
    """Refuse options that `make_schedule` refuses, before there are parameters to train.

    Args:
        library: The module of `get_scheduler`: `diffusers.optimization` or `transformers`.
        options: The options of the run.
        section: Name of the config's section in errors: `train`.

    Raises:
        ConfigError: As for `make_schedule`.
    """
    nothing = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=options.learning_rate)
    make_schedule(library, options, nothing, section=section)


def adopt_schedule(schedule: Any, options: ScheduleOptions, before: Mapping[str, Any]) -> str | None:
    """Set the learning rate of a resumed run by its own schedule, whose `max_steps` may differ from the checkpoint's.

    Args:
        schedule: From `make_schedule`, with the checkpoint's state loaded.
        options: The options of this run.
        before: The options of the run that wrote the checkpoint.

    Returns:
        A message if this changes the learning rate; else None.
    """
    if not isinstance(schedule, LambdaLR):
        return None
    was = schedule.get_last_lr()
    rates = [
        base * factor(schedule.last_epoch) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates  # as after `step`: `get_last_lr` returns it
    if rates == was:
        return None
    return (
        f"note: max_steps was {before.get('max_steps')}, is {options.max_steps}: {options.lr_scheduler} continues as "
        f"in a run of {options.max_steps} steps, with a learning rate of {rates[0]:.3g} instead of {was[0]:.3g}"
    )


def is_due(step: int, every: int) -> bool:
    """Return whether `step` is a multiple of `every`; never if `every` is 0."""
    return every > 0 and step % every == 0


def saves_left(step: int, max_steps: int, every: int) -> int:
    """Return how many checkpoints are written after `step`: every `every` steps, and at the end."""
    if step >= max_steps:
        return 0
    return 1 if every == 0 else -(-max_steps // every) - step // every
