"""Downloads of pipelines: how to get the files that a command needs, how many bytes they are, and their progress."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from calotype.models.spec import ModelSpec
from calotype.progress import track
from calotype.terminal import size_text

__all__ = ["download_bytes", "downloading", "ways_to_get"]

_FILES: Final = (
    '--exclude "*fp16*" --include "*.json" --include "*.txt" --include "*.model" --include "*/*.safetensors"'
)
"""What diffusers loads of a repository: not the same weights again, in one file at its top or for other libraries."""
_NETWORK: Final = '--exclude "transformer/*" --exclude "unet/*"'
_INTERVAL: Final = 0.5
"""Seconds between two looks at how much is there."""


def download_bytes(spec: ModelSpec | None, *, network: bool) -> int | None:
    """Return the bytes of the files that a command needs; None if they are not known.

    Args:
        spec: The model.
        network: Whether it needs the transformer or U-Net, too.
    """
    if spec is None or spec.frozen_bytes is None or (network and spec.network_bytes is None):
        return None
    return spec.frozen_bytes + (spec.network_bytes or 0) * network


def ways_to_get(spec: ModelSpec | None, name: str | None = None, *, network: bool = False) -> str:
    """Return how to get a pipeline's files, as the end of an error message.

    Args:
        spec: The model, if it is known.
        name: Its repository on the hub; None is the model's first.
        network: Whether the transformer or U-Net is needed, too: for training.
    """
    name = name or (spec.hub[0] if spec else "NAME")
    size = download_bytes(spec, network=network)
    files = _FILES if network else f"{_NETWORK} {_FILES}"
    what = ["with the network" if network else "without its network"]
    what += [size_text(size)] if size is not None else []
    return (
        f"`hf download {name} {files} --local-dir FOLDER` gets what is needed ({', '.join(what)}): then model: FOLDER. "
        f"Where it is gated, accept its terms on https://huggingface.co/{name} and run `hf auth login` first"
    )


@contextmanager
def downloading(name: str, size: int | None) -> Iterator[None]:
    """Show on standard error how much of a repository was downloaded into the hub's cache.

    Args:
        name: The repository.
        size: Bytes that are needed; None if they are not known.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    blobs = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"
    before, ended = _bytes_in(blobs), threading.Event()
    with track(f"downloading {name}", unit="bytes") as show:

        def watch() -> None:
            while not ended.wait(_INTERVAL):
                done = _bytes_in(blobs) - before
                show(done, max(done, size or 0))

        watcher = threading.Thread(target=watch, name="calotype-download", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


def _bytes_in(folder: Path) -> int:
    """Return the bytes of a folder's files, unfinished ones included."""
    total = 0
    for path in folder.glob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # renamed meanwhile
            continue
    return total
