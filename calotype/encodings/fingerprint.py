"""A component's fingerprint: a hash of every byte that decides what its model computes, wherever its folder lies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import xxhash

from calotype.errors import ConfigError
from calotype.images.memory import Memory

__all__ = ["combine", "component_fingerprint"]

_WEIGHTS: Final = (".safetensors", ".bin")
"""In the order in which diffusers prefers them."""

_OTHERS: Final = {
    # The same weights for other frameworks, which diffusers does not load under torch, and what nobody loads.
    *(".msgpack", ".h5", ".onnx", ".onnx_data", ".pb", ".ot", ".ckpt", ".pt", ".pth", ".gguf", ".xml"),
    *(".md", ".lock", ".png", ".jpg"),
}

_VARIANT: Final = re.compile(r"[^.]+\.(?P<variant>[^.]+?)(-\d+-of-\d+)?\.(safetensors|bin)")
"""`diffusion_pytorch_model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors`."""

_INDEX: Final = re.compile(r"\.index(\.[^.]+)?\.json$")
"""Which file holds which weight: the files themselves are hashed."""

_BLOCK: Final = 8 << 20


def component_fingerprint(folder: Path, *, variant: str | None = None) -> bytes:
    """xxh3-128 over the names and bytes of a component's files: configuration, tokenizer and those weights that load.

    Neither the folder's place and name nor the weights of another variant matter. Each file is read once: its hash is
    remembered by path, size and times of change.

    Args:
        folder: Of one component: `…/vae`.
        variant: Of the weights (`fp16`), where the component has it.

    Raises:
        ConfigError: It holds no files.
    """
    files = dict(_files(folder, variant))
    if not files:
        raise ConfigError(f"{folder}: the files of a model or tokenizer were expected there, and it has none")
    return combine(
        part for name, digest in zip(files, _digests(files.values()), strict=True) for part in (name, digest)
    )


def combine(parts: Iterable[str | bytes]) -> bytes:
    """xxh3-128 over parts, each with its length before it. 16 bytes."""
    total = xxhash.xxh3_128()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.digest()


def _files(folder: Path, variant: str | None) -> Iterator[tuple[str, Path]]:
    """(name relative to the folder, file) of what counts, by name."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    weights = {name for name in names if name.endswith(_WEIGHTS)}
    # diffusers loads a component that lacks the variant from its usual weights, and from safetensors where it can.
    chosen = _of_variant(weights, variant) or _of_variant(weights, None)
    chosen = {name for name in chosen if name.endswith(_WEIGHTS[0])} or chosen
    for name in names:
        if name in weights:
            counts = name in chosen
        else:
            hidden = any(part.startswith(".") for part in name.split("/"))
            counts = not hidden and Path(name).suffix not in _OTHERS and not _INDEX.search(name)
        if counts:
            yield name, folder / name


def _of_variant(weights: Iterable[str], variant: str | None) -> set[str]:
    """The weight files of one variant; None is that without a name."""
    found = set()
    for name in weights:
        match = _VARIANT.fullmatch(name.rsplit("/", 1)[-1])
        if (match["variant"] if match else None) == variant:
            found.add(name)
    return found


def _digests(paths: Iterable[Path]) -> list[bytes]:
    """xxh3-128 of each file's bytes; of those that are unchanged since they were last read, from memory."""
    resolved = [path.resolve() for path in paths]
    stats = [path.stat() for path in resolved]
    # The time of the change itself too: it tells when a file's own time was set back after its bytes changed.
    keys = [
        (str(path), "", info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        for path, info in zip(resolved, stats, strict=True)
    ]
    with Memory(
        "weights",
        "files_1",
        key=("path", "part"),
        state=("size", "mtime_ns", "ctime_ns"),
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
