"""Files that a person asks for by name: a page, a config, a report. Written whole, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from calotype.core.atomic import replace_file
from calotype.errors import ConfigError
from calotype.terminal import finite_or_null

__all__ = ["write_json", "write_output"]


def write_output(path: Path, data: bytes | str) -> None:
    """Write a file, or give it new contents; folders on the way are made.

    The new contents take the old one's place when all of them are on the disk. A link stays a link, rights stay as they
    were, and what is no regular file, such as `/dev/stdout`, is written to as it is.

    Args:
        path: Its name.
        data: Its contents; text as UTF-8.

    Raises:
        ConfigError: It can't be written; what was there is as before.
    """
    data = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                file.write(data)
        else:
            replace_file(path, data)
    except OSError as error:
        raise ConfigError(f"{path}: can't be written: {error.strerror or error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write plain values as indented JSON, as `write_output` does. NaN and inf, which JSON lacks, become null.

    Raises:
        ConfigError: It can't be written; what was there is as before.
    """
    text = json.dumps(finite_or_null(value), ensure_ascii=False, indent=1, allow_nan=False)
    write_output(path, text + "\n")
