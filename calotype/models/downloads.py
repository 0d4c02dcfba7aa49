"""Downloads of pipelines: how to get the files that a command needs, how many bytes they are, and their progress."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from calotype.models.spec import ModelSpec
from calotype.progress import track
from calotype.terminal import size_text, visible

__all__ = ["LOGIN", "download_bytes", "downloading", "ways_to_get", "why_not"]

_FILES: Final = (
    '--exclude "*fp16*" --include "*.json" --include "*.txt" --include "*.model" --include "*/*.safetensors"'
)
"""What diffusers loads of a repository: not the same weights again, in one file at its top or for other libraries."""
_NETWORK: Final = '--exclude "transformer/*" --exclude "unet/*"'
LOGIN: Final = "if gated, `hf auth login` first"
"""What a download needs beside its command."""
_ANSWERS: Final = ("RepositoryNotFoundError", "RevisionNotFoundError")
"""Errors of huggingface_hub for what the hub answers."""
_UNREACHED: Final = ("ConnectError", "ConnectTimeout", "OfflineModeIsEnabled", "LocalEntryNotFoundError")
"""Errors of huggingface_hub and httpx without an answer."""
_REASON: Final = 80
"""Characters of another error's reason."""
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
    what = (
        f"{size_text(size)}, {'with' if network else 'without'} its network" if size is not None else "what is needed"
    )
    return f"`hf download {name} {files} --local-dir FOLDER` gets {what} ({LOGIN}): then model: FOLDER"


def why_not(error: BaseException, name: str) -> str:
    """Return why the hub has not answered with a repository's files: `no connection`, or the error's name and reason.

    Args:
        error: What huggingface_hub or diffusers raised.
        name: The repository.
    """
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(before)
    names = [type(one).__name__ for one in chain]
    if "GatedRepoError" in names:
        return f"GatedRepoError: accept its terms on https://huggingface.co/{name}"
    if (answer := next((one for one in names if one in _ANSWERS), None)) is not None:
        return answer
    if any(isinstance(one, ConnectionError | socket.gaierror) or type(one).__name__ in _UNREACHED for one in chain):
        return "no connection"
    reason = str(chain[-1]).strip().partition("\n")[0]
    return f"{names[-1]}: {visible(reason, _REASON)}" if reason else names[-1]


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
