"""Fingerprints of model components: hashes of all files that determine a model's output, without their location."""

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
    """Hash (xxh3-128) the names and bytes of a component's files: configuration, tokenizer and the weights to load.

    The location and name of the folder and the weights of other variants have no effect. Each file is read once: its
    hash is cached by path and `FileState`.

    Args:
        folder: Folder of one component, such as `…/vae`.
        variant: Variant of the weights (`fp16`), if the component has it.

    Returns:
        16 bytes.

    Raises:
        ConfigError: The folder has no files of a model or tokenizer.
    """
    there = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    names = files_that_count(there, variant=variant)
    if not names:
        raise ConfigError(f"{folder}: the files of a model or tokenizer were expected there, and it has none")
    return files_fingerprint(folder, names)


def files_fingerprint(folder: Path, names: Sequence[str]) -> bytes:
    """Hash (xxh3-128) the names and bytes of files in a folder, in the order given. Hashes of files are cached.

    Args:
        folder: The folder.
        names: Names of the files, relative to it.

    Returns:
        16 bytes.
    """
    digests = _digests([folder / name for name in names])
    return combine(part for name, digest in zip(names, digests, strict=True) for part in (name, digest))


def combine(parts: Iterable[str | bytes]) -> bytes:
    """Hash (xxh3-128) parts, each prefixed with its length; return 16 bytes."""
    total = xxhash.xxh3_128()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.digest()


def _digests(paths: Iterable[Path]) -> list[bytes]:
    """Return the hash (xxh3-128) of each file's bytes, from the cache if the file is unchanged."""
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
                memory.put([(*key, digest)])  # one by one: an interrupted run keeps the hashes computed so far
            digests.append(digest)
    return digests


def _digest(path: Path) -> bytes:
    total, block = xxhash.xxh3_128(), bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            total.update(memoryview(block)[:count])
    return total.digest()
