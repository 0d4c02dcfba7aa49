"""The options of all sections by name: which sections have one, and which ones a misspelt name may mean."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from typing import Final

from calotype.config.config import Config
from calotype.config.errors import section_of
from calotype.config.section import Section
from calotype.errors import MOST, nearest

__all__ = ["SECTIONS", "find_options", "list_options", "renamed_option", "suggest_options"]

SECTIONS: Final = tuple(name for name in Config.sections if name != "distill")
"""The sections that a config has unless it distills, which is a training of its own with options of the same names."""

_ELSEWHERE: Final = {
    "lr": "train.learning_rate",
    "bs": "loader.batch_size",
    "lora_dim": "train.lora_rank",
    "epochs": "train.max_steps",
    "num_epochs": "train.max_steps",
    "num_train_epochs": "train.max_steps",
    "network_dim": "train.lora_rank",
    "network_alpha": "train.lora_alpha",
    "save_steps": "train.checkpoint_every",
    "num_workers": "loader.threads",
    "workers": "loader.threads",
    "flip": "dataset.img_transform.horizontal_flip",
    "hflip": "dataset.img_transform.horizontal_flip",
    "caption_dropout": "dataset.caption_transform.drop",
    "size": "dataset.resolution",
    "cache_dir": "encodings.store",
    "max_token_length": "encodings.max_sequence_length",
}
"""What other trainers call an option that has a very different name here."""


@cache
def list_options() -> tuple[str, ...]:
    """Return the dotted keys of all options, section by section."""
    return tuple(_keys(Config, ""))


def _keys(section: type[Section], above: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if section is not Config or inner is None:
            yield f"{above}{name}"
        if inner is not None:
            yield from _keys(inner, f"{above}{name}.")


def find_options(name: str, sections: Collection[str] = SECTIONS) -> tuple[str, ...]:
    """Return the dotted keys of the options that a name may mean, so one if it can be given without its section.

    Of each section it is the option of this name that is furthest out; of another section, also one that the name may
    be short for: `rank` is an option of `loader`, and short for `lora_rank` of `train`.

    Args:
        name: Without its section: `batch_size`, `allow_private`.
        sections: The sections to look in; options at the top of a config are always among them.
    """
    known = _known(sections)
    named = [key for key in known if key.rpartition(".")[2] == name]
    depths: dict[str, int] = {}
    for key in named:
        section = key.partition(".")[0]
        depths[section] = min(depths.get(section, len(key)), key.count("."))
    found = [key for key in named if key.count(".") == depths[key.partition(".")[0]]]
    if found:
        found += [key for key in known if key.endswith(f"_{name}") and key.partition(".")[0] not in depths]
    return tuple(found)


def suggest_options(name: str, sections: Collection[str] = SECTIONS) -> tuple[str, ...]:
    """Return the dotted keys of the options that a misspelt name may mean, the nearest first: at most three.

    Args:
        name: Without its section.
        sections: As for `find_options`.
    """
    found = tuple(key for key in renamed_option(name) if key.partition(".")[0] in sections)
    if found:
        return found
    names = dict.fromkeys(key.rpartition(".")[2] for key in _known(sections))
    return tuple(key for near in nearest(name, names) for key in find_options(near, sections))[:MOST]


def renamed_option(name: str) -> tuple[str, ...]:
    """Return the dotted key of the option that other trainers call so, if any."""
    found = _ELSEWHERE.get(name.lower().replace("-", "_"))
    return () if found is None else (found,)


def _known(sections: Collection[str]) -> list[str]:
    return [key for key in list_options() if "." not in key or key.partition(".")[0] in sections]
