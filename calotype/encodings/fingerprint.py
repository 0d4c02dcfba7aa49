"""A component's fingerprint: a hash of every byte that decides what its model computes, wherever its folder lies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import xxhash

from calotype.errors import ConfigError
from calotype.file_state import FileState, state_of
from calotype.images.memory import Memory

__all__ = ["combine", "component_fingerprint", "files_fingerprint", "files_that_count"]

_WEIGHTS: Final = (".safetensors", ".bin")
"""In the order in which diffusers prefers them."""

_VARIANT: Final = re.compile(r"[^.]+\.(?P<variant>[^.]+?)(-\d+-of-\d+)?\.(safetensors|bin)")
"""`diffusion_pytorch_model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors`."""

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


def files_that_count(names: Iterable[str], *, variant: str | None = None) -> list[str]:
    """Which of a component's files decide what it computes, sorted: of a model its configuration and the weights that
    diffusers loads, of a tokenizer or processor all but hidden files and pages of text.

    Args:
        names: Relative to the component's folder.
        variant: Of the weights, where the component has it.
    """
    names = sorted(names)
    weights = [name for name in names if name.endswith(_WEIGHTS)]
    if not weights:
        hidden = [name for name in names if any(part.startswith(".") for part in name.split("/"))]
        return [name for name in names if name not in hidden and not name.endswith(".md")]
    # A component that lacks the variant is loaded from its usual weights, and from safetensors where it can be.
    chosen = _of_variant(weights, variant) or _of_variant(weights, None)
    chosen = [name for name in chosen if name.endswith(_WEIGHTS[0])] or chosen
    return sorted([name for name in names if name == "config.json"] + chosen)


def combine(parts: Iterable[str | bytes]) -> bytes:
    """xxh3-128 over parts, each with its length before it. 16 bytes."""
    total = xxhash.xxh3_128()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.digest()


def _of_variant(weights: Iterable[str], variant: str | None) -> list[str]:
    """The weight files of one variant; None is that without a name."""
    matches = {name: _VARIANT.fullmatch(name) for name in weights}
    return [name for name, match in matches.items() if (match["variant"] if match else None) == variant]


def _digests(paths: Iterable[Path]) -> list[bytes]:
    """xxh3-128 of each file's bytes; of those that are unchanged since they were last read, from memory."""
    resolved = [path.resolve() for path in paths]
    keys = [(str(path), "", *state_of(path.stat())) for path in resolved]
    with Memory(
        "weights",
        "files_2",
        key=("path", "part"),
        state=FileState._fields,
        values=("digest",),
        what="hashes of model files",
    ) as memory:
        digests: list[bytes] = []
        for key, path, known in zip(keys, resolved, memory.recall(keys), strict=True):
            digest = known[0] if known else _digest(path)
            if not known:
                memory.learn([(*key, digest)])  # one by one: an interrupted run has not read 10 GB for nothing
            digests.append(digest)
    return digests


def _digest(path: Path) -> bytes:
    total, block = xxhash.xxh3_128(), bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            total.update(memoryview(block)[:count])
    return total.digest()
