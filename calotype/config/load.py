"""A YAML file and `key=value` overrides become a config. OmegaConf reads the file, so `${…}` refers to other values.

OmegaConf and PyYAML are imported when a config is loaded, not before.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from calotype.config.config import Config
from calotype.config.keys import KEYS, check_keys, check_seeds
from calotype.config.overrides import distilling_first, override
from calotype.core.small_files import read_small_file
from calotype.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["is_config_file", "load_config", "read_config", "read_text", "read_traced"]

_LONGEST: Final = 16 << 20
"""Bytes of the longest config: one may list a hundred thousand files."""


def read_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config, apply overrides, and check all of it.

    Args:
        source: As for `load_config`.
        overrides: As for `load_config`.

    Raises:
        ConfigError: As for `load_config`; or an option is unknown or has a value that can't be.
    """
    return Config.parse(load_config(source, overrides))


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a config and apply overrides, the later ones last.

    Args:
        source: A `.yaml` or `.yml` file. Anything else (a folder of images, a data file, a glob, a hub name) becomes
            the `path` of a dataset with default options.
        overrides: `key=value`, the key dotted (`loader.batch_size=4`), the value read as YAML. A key that only one
            section has needs no name of it: `max_steps=10` is short for `train.max_steps=10` (for
            `distill.max_steps=10` where the config has a `distill` section and no `train`), `batch_size=4` for
            `loader.batch_size=4`, `allow_private=true` for `dataset.fetch.allow_private=true`. As in
            torchtune, a name given to a section that has a `_component_` replaces the `_component_`.

    Returns:
        Plain dicts, lists and scalars, every `${…}` resolved.

    Raises:
        ConfigError: The file is missing or not YAML (with line and column); an override or a key at the top is
            misspelt; a `${…}` leads nowhere; a value that was left for the user to fill in (`???`) is not there.
    """
    return read_traced(source, overrides)[0]


def read_traced(source: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Read a config as `load_config` does; also return the dotted keys that the overrides set."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not str(source):
        raise ConfigError("source: found '', expected a folder, a data file or a config; is a variable unset?")
    was_set: list[str] = []
    is_yaml = is_config_file(source)
    where = str(source) if is_yaml else "config"
    try:
        config = _read(Path(source)) if is_yaml else OmegaConf.create({"dataset": {"path": str(source)}})
        for given in distilling_first(overrides):
            was_set += override(config, given)
        missing = sorted(key for key in OmegaConf.missing_keys(config) if _section(key) in KEYS)
        if missing:
            raise ConfigError(f"{where}: {missing[0]} has no value (???); fill it in, or add {missing[0]}=…")
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{where}: {error.full_key}: {reason} (a reference is written ${{section.key}})") from error
    assert isinstance(plain, dict)
    result = {str(key): value for key, value in plain.items()}
    check_keys(result, where)
    check_seeds(result, where)
    return result, was_set


def is_config_file(source: str | Path) -> bool:
    """Return whether a source is a config; anything else is the path of a dataset."""
    return Path(source).suffix.lower() in {".yaml", ".yml"}


def read_text(path: Path) -> str:
    """Return the text of a config file.

    Raises:
        ConfigError: It can't be read, or is no text.
    """
    try:
        return read_small_file(path, _LONGEST).decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file (looked in {Path.cwd()})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror or error}") from error


def _read(path: Path) -> DictConfig:
    import yaml
    from omegaconf import DictConfig, OmegaConf

    path = path.expanduser()
    text = read_text(path)
    try:
        config = OmegaConf.load(io.StringIO(text))
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path}{_position(error.problem_mark)}: {_problem(error, text)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: can't be read as YAML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path}: its values are nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"{path}: can't be read as YAML: {error}") from None
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path}: expected a mapping (key: value) at the top, found a list")
    return config


def _position(mark: Any) -> str:
    return "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"


def _problem(error: Any, text: str) -> str:
    """Return PyYAML's description of the problem, with the position where the unfinished construct begins."""
    mark = error.problem_mark
    if mark is not None and "\t" in "".join(text.splitlines()[mark.line : mark.line + 1])[: mark.column + 1]:
        return "not valid YAML: found a tab; expected spaces in front of a key"
    problem = f"not valid YAML: {error.problem}"
    return (
        f"{problem} ({error.context} that begins at{_position(error.context_mark)[1:]})" if error.context else problem
    )


def _section(key: str) -> str:
    return key.partition(".")[0].partition("[")[0]
