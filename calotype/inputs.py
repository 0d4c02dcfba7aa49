"""The files that a config's dataset is made of: what to watch to see whether anything has changed. Needs no torch."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from calotype.components import COMPONENT
from calotype.file_state import file_holding
from calotype.remembered import outside
from calotype.types import ImageRef

__all__ = ["input_files", "input_folders", "picture_folders", "source_name"]

_OURS: Final = "calotype."


def source_name(config: Mapping[str, Any]) -> str:
    """What the dataset is read from, in words."""
    path = _path(config)
    return ", ".join(map(str, path)) if isinstance(path, list | tuple) else str(path)


def picture_folders(config: Mapping[str, Any]) -> list[str]:
    """The folders that are given as path."""
    return [each for each in _paths(config) or [] if Path(each).is_dir()]


def input_folders(config: Mapping[str, Any]) -> list[str] | None:
    """The same, as what a remembered report depends on; None when it may depend on what no file shows."""
    return None if _paths(config) is None or _foreign(config) else picture_folders(config)


def input_files(
    config: Mapping[str, Any], refs: Iterable[ImageRef], folders: Sequence[str], *, more: Iterable[Path] = ()
) -> tuple[str, ...] | None:
    """What else it depends on: data files, pictures elsewhere, and `more`. None when some pictures are remote.

    Args:
        config: What `load_config` gave.
        refs: The pictures.
        folders: What `input_folders` gave: files in them are watched already.
        more: Further files.
    """
    paths = {str(file) for file in more}
    for ref in refs:
        if ref.path is None:
            return None
        paths.add(file_holding(ref.path, ref.key))
    paths |= {each for each in _paths(config) or [] if Path(each).is_file()}
    return outside(paths, folders)


def _path(config: Mapping[str, Any]) -> Any:
    options = config.get("dataset") or {}
    return options.get("path", options.get("source"))


def _paths(config: Mapping[str, Any]) -> list[str] | None:
    """The paths that the dataset is read from; None when they are not plain folders and files that are there."""
    path = _path(config)
    paths = [path] if isinstance(path, str) else list(path) if isinstance(path, Sequence) else []
    if not paths or config["dataset"].get("data_files") is not None:
        return None
    plain = [str(Path(each).expanduser().absolute()) for each in paths if isinstance(each, str)]
    good = len(plain) == len(paths) and all(not glob.has_magic(each) and Path(each).exists() for each in plain)
    return plain if good else None


def _foreign(value: Any) -> bool:
    """Whether somebody else's code is named anywhere: nobody can see when it changes."""
    if isinstance(value, Mapping):
        component = value.get(COMPONENT)
        return (component is not None and not str(component).startswith(_OURS)) or any(map(_foreign, value.values()))
    return isinstance(value, list | tuple) and any(map(_foreign, value))
