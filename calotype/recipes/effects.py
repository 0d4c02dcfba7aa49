"""Options that can't have an effect beside others: what a person gave is used, or is an error. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from calotype.errors import ConfigError

__all__ = ["Rule", "check_effects", "check_guidance", "check_validation", "recipe_rules", "sample_rules"]

_CONSTANT: Final = ("constant", "piecewise_constant")
"""Schedules that take `num_warmup_steps` and do nothing with it."""

Rule = tuple[Sequence[str], bool, str]
"""Options, whether they have no effect, and why: what follows "has no effect"."""


def check_effects(section: str, given: Mapping[str, Any], rules: Iterable[Rule]) -> None:
    """Refuses options that were given, not as null, and have no effect.

    Raises:
        ConfigError: Names the first.
    """
    for names, idle, why in rules:
        for name in names:
            if idle and given.get(name) is not None:
                raise ConfigError(f"{section}.{name}: has no effect {why}; leave it out, or {name}=null")


def recipe_rules(given: Mapping[str, Any], *, lora: Sequence[str], schedule: str) -> list[Rule]:
    """What all recipes have in common.

    Args:
        given: The options of a config's section.
        lora: The names of those that are about adapters.
        schedule: The name of the learning rate's, where it is not given.
    """
    schedule = given.get("lr_scheduler") or schedule
    warms_up = bool(given.get("lr_warmup_steps"))
    return [
        (lora, given.get("method") == "full", "with method: full, which has no adapters"),
        (
            ("lr_warmup_steps",),
            schedule in _CONSTANT and warms_up,
            f"with lr_scheduler: {schedule}; constant_with_warmup warms up",
        ),
    ]


def sample_rules(given: Mapping[str, Any]) -> list[Rule]:
    """Of sample images: `sample_prompts: []` turns them off, and whatever else is said of them stays."""
    names = ("sample_every", "sample_steps", "sample_guidance", "sample_size")
    return [(names, "sample_prompts" not in given, "without sample_prompts")]


def check_validation(given: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
    """Refuses options of validation where nothing is held out; `validation: 0` turns it off, and they stay.

    Raises:
        ConfigError: One was given.
    """
    rule = (("validation_every",), "validation" not in dataset, "without dataset.validation, the share to hold out")
    check_effects("train", given, [rule])


def check_guidance(given: Mapping[str, Any], model: str, *, embeds: bool, guides: bool) -> None:
    """Refuses guidance for a model that takes none.

    Args:
        given: The options of a config's section.
        model: Its name.
        embeds: Whether its network is told a guidance.
        guides: Whether its pipeline makes images with one.

    Raises:
        ConfigError: One was given.
    """
    check_effects(
        "train",
        given,
        [
            (("guidance",), not embeds, f"with {model}, which is told no guidance in training"),
            (("sample_guidance",), not embeds and not guides, f"with {model}, which takes no guidance"),
        ],
    )
