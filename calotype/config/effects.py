"""Options that can't have an effect beside others of their section: what was given is used, or is an error.

An option that is off (null, false, 0 or empty) is never refused, nor is one beside an option that was turned off: so
`validation=0` on the command line leaves `validation_seed` of the file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from calotype.config.errors import OptionError
from calotype.config.section import Section
from calotype.errors import ConfigError

if TYPE_CHECKING:
    from calotype.config.distill import DistillConfig
    from calotype.config.image_files import FetchConfig
    from calotype.config.train import TrainConfig

__all__ = [
    "DISTILL",
    "FETCH",
    "TRAIN",
    "Rule",
    "check_guidance",
    "check_section",
    "check_targets",
    "unused_options",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rule(Generic[T]):
    """Options that have no effect under a condition."""

    options: str
    """Their names, separated by spaces; of a whole config, their dotted keys."""
    idle: Callable[[T], bool]
    """Whether they have none, given their section or the whole config."""
    why: str | Callable[[T], str]
    """What follows "has no effect"."""
    reads: str = ""
    """Of a whole config: the other keys at its top that the condition looks at."""


_CONSTANT: Final = ("constant", "piecewise_constant")
"""Schedules that take `num_warmup_steps` and do nothing with it."""


def _no_warmup(options: TrainConfig | DistillConfig) -> bool:
    return options.lr_scheduler in _CONSTANT


def _warmup_why(options: TrainConfig | DistillConfig) -> str:
    return f"with lr_scheduler: {options.lr_scheduler}; constant_with_warmup warms up"


_ADAPTERS: Final = "lora_rank lora_alpha lora_targets"

TRAIN: Final[tuple[Rule[TrainConfig], ...]] = (
    Rule(
        f"{_ADAPTERS} lora_format lora_weights",
        lambda options: options.method == "full",
        "with method: full, which has no adapters",
    ),
    Rule("lr_warmup_steps", _no_warmup, _warmup_why),
    Rule(
        "sample_every sample_steps sample_guidance sample_size",
        lambda options: "sample_prompts" not in options.model_fields_set,
        "without sample_prompts",
    ),
)
DISTILL: Final[tuple[Rule[DistillConfig], ...]] = (
    Rule(_ADAPTERS, lambda options: options.method == "full", "with method: full, which has no adapters"),
    Rule("lr_warmup_steps", _no_warmup, _warmup_why),
    Rule(
        "n",
        lambda options: options.teacher == "dataset",
        "with teacher: dataset, which has the captions that are there",
    ),
    Rule(
        "revision",
        lambda options: Path(options.student).expanduser().is_dir(),
        "with a student that is a local folder; a name on the hub has revisions",
    ),
)
FETCH: Final[tuple[Rule[FetchConfig], ...]] = (
    Rule(
        "read_timeout",
        lambda options: options.read_timeout > options.timeout,
        lambda options: f"above timeout: {options.timeout:g}, the seconds of the whole fetch",
    ),
    Rule(
        "connections_per_host",
        lambda options: options.connections_per_host > options.connections,
        lambda options: f"above connections: {options.connections}, those to all hosts",
    ),
)


def check_section(section: Section, rules: Iterable[Rule[Any]]) -> None:
    """Refuse options of a section, or by dotted keys those of the sections in it, that were given and have no effect.

    Raises:
        OptionError: Names the first.
    """
    for rule in rules:
        for name in rule.options.split():
            if _is_set(section, name) and rule.idle(section):
                why = rule.why if isinstance(rule.why, str) else rule.why(section)
                option = name.rpartition(".")[2]
                raise OptionError(name, f"has no effect {why}; leave it out, or {option}=null")


def unused_options(section: T, rules: Iterable[Rule[T]]) -> frozenset[str]:
    """Return the options that have no effect in a section, whether they were given or not."""
    return frozenset(name for rule in rules if rule.idle(section) for name in rule.options.split())


def check_targets(options: TrainConfig | DistillConfig) -> None:
    """Refuse an empty list of layers to adapt.

    Raises:
        OptionError: It is empty.
    """
    if options.lora_targets is not None and not options.lora_targets:
        raise OptionError(
            "lora_targets", "found none, expected endings of layers' names; null adapts the default layers"
        )


def check_guidance(options: TrainConfig, model: str, *, embeds: bool, guides: bool) -> None:
    """Refuse guidance for a model that takes none.

    Args:
        options: Those of a training.
        model: The name of the model.
        embeds: Whether its network takes a guidance as an input.
        guides: Whether its pipeline makes images with one.

    Raises:
        ConfigError: One was given.
    """
    rules: tuple[Rule[TrainConfig], ...] = (
        Rule("guidance", lambda _: not embeds, f"with {model}, whose network takes no guidance in training"),
        Rule("sample_guidance", lambda _: not embeds and not guides, f"with {model}, which takes no guidance"),
    )
    try:
        check_section(options, rules)
    except OptionError as error:
        raise ConfigError(f"train.{error.option}: {error}") from None


def _is_set(section: Section, key: str) -> bool:
    """Whether an option was given and is not off. A choice that is the default asks for nothing."""
    *above, name = key.split(".")
    for inner in above:
        found = getattr(section, inner)
        if not isinstance(found, Section):
            return False
        section = found
    value = section.given().get(name)
    if isinstance(value, bool | str) and value == type(section).model_fields[name].default:
        return False
    return value is not None and value is not False and value != 0 and value != [] and value != ()
