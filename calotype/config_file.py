"""A config's YAML file, read with errors that name line and column."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.errors import ConfigError
from calotype.small_files import read_small_file

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["read_yaml"]

_LONGEST = 16 << 20
"""Bytes of the longest config: one may list a hundred thousand files."""


def read_yaml(path: Path) -> DictConfig:
    """Read a config file; `${…}` and `???` are left as they are.

    Raises:
        ConfigError: It is missing, longer than any config, not UTF-8, or not a YAML mapping (with line and column).
    """
    import yaml
    from omegaconf import DictConfig, OmegaConf

    path = path.expanduser()
    try:
        config = OmegaConf.load(io.StringIO(read_small_file(path, _LONGEST).decode("utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file (looked in {Path.cwd()})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: {error}") from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path}{_position(error.problem_mark)}: {_problem(error)}") from error
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror or error}") from error
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


def _problem(error: Any) -> str:
    """What PyYAML has to say, with the place where the unfinished thing began."""
    problem = f"not valid YAML: {error.problem}"
    return (
        f"{problem} ({error.context} that begins at{_position(error.context_mark)[1:]})" if error.context else problem
    )
