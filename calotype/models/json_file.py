"""Read the JSON files of a pipeline's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calotype.errors import ConfigError

__all__ = ["component_config", "read_json_object"]


def read_json_object(file: Path) -> Mapping[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ConfigError: There is no such file, or it holds something else.
    """
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; copy or download it again") from error
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON ({error}); copy or download it again") from error
    if not isinstance(found, Mapping):
        raise ConfigError(f"{file}: a JSON object was expected; copy or download it again")
    return found


def component_config(folder: Path) -> Mapping[str, Any]:
    """Return the `config.json` of a pipeline's component; empty if there is none that can be read."""
    try:
        return read_json_object(folder / "config.json")
    except ConfigError:
        return {}
