"""Options that can't have an effect beside others: what a person gave is used, or is an error. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from calotype.errors import ConfigError

if TYPE_CHECKING:
    from calotype.config.config import Config
    from calotype.config.distill import DistillConfig
    from calotype.config.section import Section
    from calotype.config.train import TrainConfig

__all__ = ["Rule", "check_effects", "check_guidance", "check_validation", "recipe_rules", "sample_rules"]

_CONSTANT: Final = ("constant", "piecewise_constant")
"""Schedules that take `num_warmup_steps` and do nothing with it."""

Rule = tuple[Sequence[str], bool, str]
"""Options, whether they have no effect, and why: what follows "has no effect"."""


def check_effects(section: Section, rules: Iterable[Rule]) -> None:
    """Refuses options that were given, not as null, and have no effect.

    Raises:
        ConfigError: Names the first.
    """
    given = section.given()
    for names, idle, why in rules:
        for name in names:
            if idle and given.get(name) is not None:
                raise ConfigError(f"{section.name}.{name}: has no effect {why}; leave it out, or {name}=null")


def recipe_rules(options: TrainConfig | DistillConfig, *, lora: Sequence[str]) -> list[Rule]:
    """What all recipes have in common.

    Args:
        options: The options of a config's section.
        lora: The names of those that are about adapters.
    """
    schedule, warms_up = options.lr_scheduler, options.lr_warmup_steps > 0
    return [
        (lora, options.method == "full", "with method: full, which has no adapters"),
        (
            ("lr_warmup_steps",),
            schedule in _CONSTANT and warms_up,
            f"with lr_scheduler: {schedule}; constant_with_warmup warms up",
        ),
    ]


def sample_rules(options: TrainConfig) -> list[Rule]:
    """Of sample images: `sample_prompts: []` turns them off, and whatever else is said of them stays."""
    names = ("sample_every", "sample_steps", "sample_guidance", "sample_size")
    return [(names, "sample_prompts" not in options.model_fields_set, "without sample_prompts")]


def check_validation(options: TrainConfig, config: Config) -> None:
    """Refuses options of validation where nothing is held out; `validation: 0` turns it off, and they stay.

    Raises:
        ConfigError: One was given.
    """
    held_out = "validation" in config.dataset_options()
    check_effects(options, [(("validation_every",), not held_out, "without dataset.validation, the share to hold out")])


def check_guidance(options: TrainConfig, model: str, *, embeds: bool, guides: bool) -> None:
    """Refuses guidance for a model that takes none.

    Args:
        options: Those of a training.
        model: The name of the model.
        embeds: Whether its network is told a guidance.
        guides: Whether its pipeline makes images with one.

    Raises:
        ConfigError: One was given.
    """
    check_effects(
        options,
        [
            (("guidance",), not embeds, f"with {model}, which is told no guidance in training"),
            (("sample_guidance",), not embeds and not guides, f"with {model}, which takes no guidance"),
        ],
    )
