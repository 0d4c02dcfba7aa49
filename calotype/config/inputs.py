"""The files that a config's dataset is read from; a cached report is valid while none changes. Needs no torch."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from calotype.config import Config
from calotype.config.dataset import DatasetConfig
from calotype.config.instantiate import COMPONENT
from calotype.core.file_state import file_holding
from calotype.core.report_cache import outside
from calotype.errors import ConfigError
from calotype.types import ImageRef

__all__ = ["check_outside", "data_folder_around", "image_folders", "input_files", "input_folders", "source_name"]

_OURS: Final = "calotype."


def source_name(config: Config) -> str:
    """Return what the dataset is read from, in words."""
    path = config.our_dataset().origin
    return ", ".join(map(str, path)) if isinstance(path, list | tuple) else str(path)


def image_folders(config: Config) -> list[str]:
    """Return the folders that are given as path."""
    return [each for each in _paths(config) or [] if Path(each).is_dir()]


def input_folders(config: Config) -> list[str] | None:
    """The same, as the folders that a cached report depends on; None where it may depend on something else."""
    return None if _paths(config) is None or _foreign(config.to_mapping()) else image_folders(config)


def input_files(
    config: Config, refs: Iterable[ImageRef], folders: Sequence[str], *, more: Iterable[Path] = ()
) -> tuple[str, ...] | None:
    """What else it depends on: data files, images elsewhere, and `more`. None when some images are remote.

    Args:
        config: The config.
        refs: The images.
        folders: What `input_folders` returned: files in them are covered.
        more: Further files.
    """
    paths = {str(file) for file in more}
    for ref in refs:
        if ref.path is None:
            return None
        paths.add(file_holding(ref.path, ref.key))
    paths |= {each for each in _paths(config) or [] if Path(each).is_file()}
    return outside(paths, folders)


def check_outside(config: Config, output: Path, *, option: str, writes: str, own: Sequence[str] = ()) -> None:
    """Refuse to write into the data, where what is written would be read as images or captions the next time.

    Args:
        config: The config.
        output: The folder to write in.
        option: Which names it, for the error.
        writes: What would lie among the data, for the error.
        own: Names of folders in it that are the program's alone.

    Raises:
        ConfigError: It is one of the data's folders, or lies in one; or the data lies in one of `own`.
    """
    if (folder := data_folder_around(config, output)) is not None:
        raise ConfigError(
            f"{option}: {output} is in the data folder {folder}, where {writes} would be read as data the next time; "
            "name a folder outside it"
        )
    for given in _given(_origin(config)):
        for name in own:
            if (output / name).expanduser().resolve() in _and_above(Path(given)):
                raise ConfigError(
                    f"dataset.path: {given} is in {output / name}, where {option} has {writes} written; name another "
                    "folder to write to"
                )


def data_folder_around(config: Config, path: Path) -> str | None:
    """The folder that the dataset is read from, and that a path (there or not) is or lies in; None where it does not.

    Links are followed on both sides, those inside the data too; letter case matters where it does to the disk.
    """
    around = _and_above(path)
    if config.dataset_options().get("recursive") is False:
        around = around[:1]
    for given in _given(_origin(config)):
        for folder in _folders(given, around):
            if _holds(folder, around):
                return given
    return None


def _given(value: Any) -> Iterator[str]:
    if isinstance(value, str | os.PathLike):
        yield os.fspath(value)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _given(one)
    elif isinstance(value, Sequence):
        for one in value:
            yield from _given(one)


def _folders(given: str, around: Sequence[Path]) -> list[Path]:
    """What is read whole of one path: a folder, or those that a pattern finds."""
    path = Path(given).expanduser()
    if not glob.has_magic(given) or path.exists():
        return [path] if path.is_dir() else []
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    if "**" in path.parts:
        return [fixed]
    pattern = str(fixed.resolve() / path.relative_to(fixed))
    found = [one for one in fixed.glob(str(path.relative_to(fixed))) if one.is_dir()]
    same_depth = [one for one in around if len(one.parts) == len(Path(pattern).parts)]
    return found + [one for one in same_depth if fnmatch.fnmatchcase(str(one), pattern)]


def _holds(folder: Path, around: Sequence[Path]) -> bool:
    """Whether one of the paths is the folder, or one that a link in it leads to."""
    states = {(one.stat().st_dev, one.stat().st_ino) for one in around if one.exists()}
    waiting, seen = [folder], set[str]()
    while waiting:
        here = waiting.pop()
        if here in around or (here.exists() and (here.stat().st_dev, here.stat().st_ino) in states):
            return True
        for inside, folders, _ in os.walk(here):
            for link in filter(Path.is_symlink, (Path(inside, name) for name in folders)):
                if (real := str(link.resolve())) not in seen:
                    seen.add(real)
                    waiting.append(link)
    return False


def _and_above(path: Path) -> list[Path]:
    """A path without links, and the folders around it."""
    real = path.expanduser().resolve()
    return [real, *real.parents]


def _origin(config: Config) -> Any:
    options = config.dataset_options()
    return options.get("path", options.get("source"))


def _paths(config: Config) -> list[str] | None:
    """The paths that the dataset is read from; None when they are not plain folders and files that are there."""
    dataset = config.dataset
    if not isinstance(dataset, DatasetConfig) or dataset.data_files is not None or not dataset.paths:
        return None
    plain = [str(Path(each).expanduser().absolute()) for each in dataset.paths]
    return plain if all(not glob.has_magic(each) and Path(each).exists() for each in plain) else None


def _foreign(value: Any) -> bool:
    """Whether somebody else's code is named anywhere: nobody can see when it changes."""
    if isinstance(value, Mapping):
        component = value.get(COMPONENT)
        return (component is not None and not str(component).startswith(_OURS)) or any(map(_foreign, value.values()))
    return isinstance(value, list | tuple) and any(map(_foreign, value))
