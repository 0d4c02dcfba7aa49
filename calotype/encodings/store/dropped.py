"""Dropped records: small JSON files beside the shards, one for each call that dropped some."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calotype.core.atomic import replace_file
from calotype.encodings.store.files import unique_name
from calotype.encodings.store.layout import as_keys
from calotype.errors import StoreError

__all__ = ["forget_dropped", "read_dropped", "write_dropped"]

_FOLDER = "dropped"


def write_dropped(store: Path, keys: Mapping[str, NDArray[np.uint8]]) -> None:
    """Write a file that drops records, by shard and keys (n, 16).

    Raises:
        OSError: The folder can't be written.
    """
    folder = store / _FOLDER
    folder.mkdir(exist_ok=True)
    document = {shard: [key.tobytes().hex() for key in named] for shard, named in keys.items()}
    replace_file(folder / f"{unique_name()}.json", [json.dumps({"dropped": document}).encode() + b"\n"])


def read_dropped(store: Path, known: set[str]) -> tuple[dict[str, NDArray[np.uint8]], set[str]]:
    """Read the files whose names are not in `known`: the keys (n, 16) by shard, and the names of all files.

    Raises:
        StoreError: A file is damaged.
    """
    keys: dict[str, list[bytes]] = {}
    names = set()
    folder = store / _FOLDER
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        names.add(path.name)
        if path.name in known:
            continue
        try:
            for shard, named in json.loads(path.read_bytes())["dropped"].items():
                keys.setdefault(shard, []).extend(bytes.fromhex(key) for key in named)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{path}: can't be read as a list of dropped records ({error}): delete it and run 'calotype cache "
                "verify --drop', which finds again what is damaged"
            ) from None
    return {shard: as_keys(named) for shard, named in keys.items()}, names


def forget_dropped(store: Path, shards: Collection[str]) -> None:
    """Delete the files that name none of these shards.

    Raises:
        OSError: The folder can't be written.
    """
    folder = store / _FOLDER
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        if not any(shard in shards for shard in json.loads(path.read_bytes())["dropped"]):
            path.unlink(missing_ok=True)
