"""The folder of a store and the version of its format."""

from __future__ import annotations

import json
from pathlib import Path

from calotype.core.atomic import replace_file
from calotype.encodings.store.files import cannot_write
from calotype.encodings.store.shard import FORMAT
from calotype.errors import NewerFormatError, StoreError

__all__ = ["check_format", "create_folder"]


def create_folder(path: Path) -> None:
    """Create a store if there is none; safe to call from several processes at once.

    Raises:
        StoreError: The folder can't be written, or has other contents.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not (path / "format.json").exists():
            if others := sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(".")):
                raise StoreError(
                    f"{path}: this folder is not a store and not empty (it holds {others[0]}); choose another folder, "
                    "or an empty one"
                )
            replace_file(path / "format.json", [json.dumps({"format": FORMAT}).encode() + b"\n"])
        (path / "shards").mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def check_format(path: Path) -> None:
    """Check that the folder is a store that this version can read.

    Raises:
        StoreError: It is not a store.
        NewerFormatError: A newer version of calotype wrote it.
    """
    try:
        found = json.loads((path / "format.json").read_bytes())["format"]
    except FileNotFoundError:
        raise StoreError(f"{path}: there is no store of encodings here (no format.json)") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path / 'format.json'}: can't be read: {error}") from None
    if not isinstance(found, int) or not 1 <= found <= FORMAT:
        raise NewerFormatError(
            f"{path}: this store has format {found}, and this calotype knows formats up to {FORMAT}: update calotype"
        )
