"""Writes output files that the user names (a page, a config, a report): atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from calotype.core.atomic import replace_file
from calotype.errors import ConfigError
from calotype.terminal import finite_or_null

__all__ = ["write_json", "write_output"]


def write_output(path: Path, data: bytes | str) -> None:
    """Write a file atomically: it has the old contents until the new ones are on the disk. Create missing folders.

    A symbolic link stays a link, and an existing file keeps its mode. Anything but a regular file, such as
    `/dev/stdout`, is opened and written.

    Args:
        path: The file.
        data: The contents; text is encoded as UTF-8.

    Raises:
        ConfigError: It can't be written; a regular file is unchanged.
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
    """Write plain values as indented JSON, atomically as `write_output`. NaN and inf, which JSON lacks, become null.

    Args:
        path: The file.
        value: Plain values.

    Raises:
        ConfigError: It can't be written; a regular file is unchanged.
    """
    text = json.dumps(finite_or_null(value), ensure_ascii=False, indent=1, allow_nan=False)
    write_output(path, text + "\n")
