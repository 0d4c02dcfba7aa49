"""`key=value` overrides of a config: which key is meant, and what is there already."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from calotype.config.component import OUR_DATASET
from calotype.config.distill import DistillConfig
from calotype.config.instantiate import COMPONENT
from calotype.config.keys import KEYS, LOOKS_LIKE, THEIRS
from calotype.config.options import SECTIONS, find_options, suggest_options
from calotype.config.train import TrainConfig
from calotype.errors import ConfigError, or_list, unknown_key

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["distilling_first", "override", "read_pairs"]

_DISTILL: Final = ("distill",)


def distilling_first(overrides: Sequence[str]) -> list[str]:
    """Return overrides with those first that make the config one that distills, which decides what others mean."""

    def is_other(given: str) -> bool:
        name = given.partition("=")[0].partition(".")[0]
        return name != "distill" and (bool(find_options(name)) or not find_options(name, _DISTILL))

    return sorted(overrides, key=is_other)


def override(config: DictConfig, given: str) -> list[str]:
    """Apply one override to a config that is being read.

    Args:
        config: The config, which changes.
        given: `key=value`.

    Returns:
        The dotted keys that were set.

    Raises:
        ConfigError: It is no `key=value`, its value is not YAML, or its key is misspelt or that of several options.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    key, equals, text = given.partition("=")
    parts = key.split(".")
    if not equals and Path(given).exists():  # the shell has expanded a pattern
        raise ConfigError(f"{given}: is a further source; expected one: a folder, a file, or a pattern in quotes")
    if not equals or not all(parts):
        raise ConfigError(f"override {given!r}: expected key=value, such as loader.batch_size=4")
    if parts[0] not in config and parts[0] not in (*KEYS, *THEIRS):
        parts[:0] = _home_of(config, parts[0], given)
    try:
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        problem = getattr(error, "problem", None) or next(iter(str(error).splitlines()), "")
        raise ConfigError(f"override {given!r}: {text!r} is not a YAML value: {problem}") from error
    assert isinstance(parsed, dict)
    value = parsed["value"]
    for length in range(1, len(parts)):
        above = ".".join(parts[:length])
        found = OmegaConf.select(config, above)
        if found is None:
            break
        if not OmegaConf.is_config(found):
            raise ConfigError(f"override {given!r}: {above} is {found!r}, which has no {parts[length]!r} in it")
    was_set = []
    if key == "seed" and len(parts) == 2:  # one thing: it goes wherever the file has one
        seeds = [f"{section}.seed" for section in ("dataset", "loader")]
        was_set = [one for one in seeds if OmegaConf.select(config, one) is not None]
        for seed in was_set:
            OmegaConf.update(config, seed, value)
    key = ".".join(parts)
    found = OmegaConf.select(config, key)
    if isinstance(value, str) and OmegaConf.is_dict(found) and COMPONENT in found:
        key = f"{key}.{COMPONENT}"
    merges = OmegaConf.is_dict(found) and isinstance(value, dict)
    OmegaConf.update(config, key, value, merge=merges, force_add=True)
    return [*was_set, *(f"{key}.{inner}" for inner in value)] if merges and value else [*was_set, key]


def read_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """Return `key=value` pairs as a mapping; a dotted key is an option within one."""
    from omegaconf import OmegaConf

    found = OmegaConf.to_container(OmegaConf.from_dotlist(list(pairs)))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def _home_of(config: DictConfig, option: str, given: str) -> list[str]:
    """The sections that hold an option which is given without them, from the outermost.

    Raises:
        ConfigError: No section has it (names the nearest options), or several have.
    """
    distills = "distill" in config and "train" not in config
    own, options = ("distill", DistillConfig.names()) if distills else ("train", TrainConfig.names())
    if option in options:
        return [own]
    found = find_options(option) or find_options(option, _DISTILL)
    if not found and difflib.get_close_matches(option, KEYS, n=1, cutoff=LOOKS_LIKE):
        raise unknown_key(f"override {given!r}", option, KEYS)
    if _is_foreign(config.get("dataset")) or option == "seed":
        return ["dataset"]
    if len(found) == 1:
        return found[0].split(".")[:-1]
    if found:
        written = [f"{key}={given.partition('=')[2]}" for key in found]
        raise ConfigError(f"override {given!r}: {len(found)} options may be meant; write {or_list(written)}")
    near = suggest_options(option, (*SECTIONS, own))
    hint = f"did you mean {or_list(near)}?" if near else "`calotype config keys` lists those there are"
    raise ConfigError(f"override {given!r}: unknown option {option!r}; {hint}")


def _is_foreign(section: Any) -> bool:
    """Whether the dataset is code of the user's own, which decides which options there are."""
    return isinstance(section, Mapping) and section.get(COMPONENT, OUR_DATASET) != OUR_DATASET
