"""A component's fingerprint: a hash of every byte that decides what its model computes, wherever its folder lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import xxhash

from calotype.core.file_state import FileState, state_of
from calotype.errors import ConfigError
from calotype.images.cache_table import CacheTable
from calotype.models.component_files import files_that_count

__all__ = ["combine", "component_fingerprint", "files_fingerprint"]

_BLOCK: Final = 8 << 20


def component_fingerprint(folder: Path, *, variant: str | None = None) -> bytes:
    """xxh3-128 over the names and bytes of a component's files: configuration, tokenizer and those weights that load.

    Neither the folder's place and name nor the weights of another variant matter. Each file is read once: its hash is
    remembered by path and `FileState`.

    Args:
        folder: Of one component: `…/vae`.
        variant: Of the weights (`fp16`), where the component has it.

    Raises:
        ConfigError: It holds no files.
    """
    there = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    names = files_that_count(there, variant=variant)
    if not names:
        raise ConfigError(f"{folder}: the files of a model or tokenizer were expected there, and it has none")
    return files_fingerprint(folder, names)


def files_fingerprint(folder: Path, names: Sequence[str]) -> bytes:
    """xxh3-128 over the names and bytes of some files of a folder, in that order. Each is read once, as above."""
    digests = _digests([folder / name for name in names])
    return combine(part for name, digest in zip(names, digests, strict=True) for part in (name, digest))


def combine(parts: Iterable[str | bytes]) -> bytes:
    """xxh3-128 over parts, each with its length before it. 16 bytes."""
    total = xxhash.xxh3_128()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.digest()


def _digests(paths: Iterable[Path]) -> list[bytes]:
    """xxh3-128 of each file's bytes; of those that are unchanged since they were last read, from memory."""
    resolved = [path.resolve() for path in paths]
    keys = [(str(path), "", *state_of(path.stat())) for path in resolved]
    with CacheTable(
        "weights",
        "files_2",
        key=("path", "part"),
        state=FileState._fields,
        values=("digest",),
        what="hashes of model files",
    ) as memory:
        digests: list[bytes] = []
        for key, path, known in zip(keys, resolved, memory.get(keys), strict=True):
            digest = known[0] if known else _digest(path)
            if not known:
                memory.put([(*key, digest)])  # one by one: an interrupted run has not read 10 GB for nothing
            digests.append(digest)
    return digests


def _digest(path: Path) -> bytes:
    total, block = xxhash.xxh3_128(), bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            total.update(memoryview(block)[:count])
    return total.digest()
