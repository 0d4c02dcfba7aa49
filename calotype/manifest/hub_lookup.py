"""`look_up_dataset`: whether a name that is no path is that of a dataset on the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

from calotype.core.hub import ask_hub
from calotype.errors import MissingPathError
from calotype.manifest.paths import absolute, suggestion

__all__ = ["look_up_dataset"]


def look_up_dataset(name: str) -> bool:
    """Ask the hub for a dataset, once and within seconds.

    Returns:
        Whether the hub can be reached. If not, the cache of `datasets` may hold the dataset.

    Raises:
        MissingPathError: The hub does not have it; or can't be reached, and the cache does not have it, either.
    """
    missing = f"{name}: there is no such file or folder{suggestion(absolute(name))}"
    try:
        ask_hub(name, "dataset")
    except ConnectionError as error:
        if _may_be_cached(name):
            return False
        raise MissingPathError(
            f"{missing}; and the Hugging Face hub can't be reached for a dataset of this name ({error}). Offline, give "
            "a folder written by save_to_disk"
        ) from None
    except Exception as error:  # of huggingface_hub, which may not be installed
        if type(error).__name__ == "RepositoryNotFoundError" and not _may_be_cached(name):
            raise MissingPathError(
                f"{missing}, and the Hugging Face hub has no dataset of this name; a private one needs `hf auth login`"
            ) from None
    return True


def _may_be_cached(name: str) -> bool:
    """Whether the cache of `datasets` has a folder for a name: it is spelled in snake case there."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser()
    letters = name.replace("/", "").replace("_", "").lower()
    return cache.is_dir() and any(letters == entry.name.replace("_", "").lower() for entry in cache.iterdir())
