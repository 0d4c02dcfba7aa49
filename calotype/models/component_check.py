"""Check that a component's files are complete, by their names, headers and sizes. No weights are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from calotype.errors import ConfigError
from calotype.models.component_files import WEIGHTS, files_that_count
from calotype.models.json_file import read_json_object
from calotype.models.safetensors_header import HEADER_START, header_of

__all__ = ["check_component"]

_POINTER: Final = b"version https://git-lfs"


def check_component(folder: Path, *, variant: str | None = None, weights: bool = True) -> None:
    """Refuse a component's folder that can't be loaded.

    Args:
        folder: Folder of one component: `…/vae`.
        variant: Variant of the weights (`fp16`), where the component has it.
        weights: Whether the component has weights: a tokenizer or scheduler has none.

    Raises:
        ConfigError: It has no files or no weights, a shard is missing, or a file is truncated.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if not names:
        raise ConfigError(f"{folder}: the files of a model or tokenizer were expected there, and it has none")
    loads = [name for name in files_that_count(names, variant=variant) if name.endswith(WEIGHTS)]
    if weights and not loads:
        raise ConfigError(
            f"{folder}: has no weights that diffusers loads; expected a .safetensors file, found {', '.join(names[:8])}"
        )
    # Compare the shards with the index: the one without a variant has three dots in its name.
    indices = [name for name in names if name.endswith(".safetensors.index.json")] if len(loads) > 1 else []
    if (usual := [name for name in indices if name.count(".") == 3]) and not variant:
        listed = read_json_object(folder / usual[0]).get("weight_map", {}).values()
        if absent := sorted(set(listed) - set(names)):
            raise ConfigError(f"{folder}: {', '.join(absent)} of {usual[0]} is missing; copy or download it again")
    for name in loads:
        _check_file(folder / name)


def _check_file(path: Path) -> None:
    """Refuse a Git LFS pointer, and a safetensors file whose size does not match its header."""
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ConfigError(f"{path}: is a Git LFS pointer and not the file itself; `git lfs pull` gets it")
        if path.suffix != WEIGHTS[0]:
            return
        size, found = os.fstat(file.fileno()).st_size, header_of(file)
    length, header = found or (0, {})
    try:
        end = max(one["data_offsets"][1] for key, one in header.items() if key != "__metadata__")
    except (ValueError, TypeError, KeyError):
        end = -1
    if end < 0:
        raise ConfigError(f"{path}: is not a whole safetensors file; copy or download it again")
    if size != (whole := HEADER_START + length + end):
        raise ConfigError(f"{path}: has {size:,} bytes and should have {whole:,}; copy or download it again")
