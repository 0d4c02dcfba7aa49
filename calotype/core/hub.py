"""`ask_hub`: ask the Hugging Face hub for a repository, once and within seconds."""

from __future__ import annotations

from typing import Final, Literal

from calotype.core.daemon_pool import DaemonPool

__all__ = ["HUB_TIMEOUT", "ask_hub"]

HUB_TIMEOUT: Final = 5.0
"""Seconds for the hub's answer."""


def ask_hub(name: str, kind: Literal["model", "dataset"]) -> None:
    """Request a repository's description. The libraries that download retry for minutes where there is no connection.

    Raises:
        ConnectionError: The hub can't be reached, or does not answer within `HUB_TIMEOUT` seconds.
        Exception: The hub's own errors: no such repository, gated, ….
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    except ImportError:
        return  # whatever downloads needs it, and reports it
    # In a thread: nothing else limits the resolution of a host's name.
    answer = DaemonPool(1, "calotype-hub").submit(HfApi().repo_info, name, repo_type=kind, timeout=HUB_TIMEOUT)
    try:
        error = answer.exception(HUB_TIMEOUT)
    except TimeoutError as timeout:
        error = timeout
    if isinstance(error, HfHubHTTPError | HFValidationError):
        raise error
    if isinstance(error, OfflineModeIsEnabled):
        raise ConnectionError("HF_HUB_OFFLINE is set")
    if error is not None:  # of the connection: its class differs between versions
        late = "Timeout" in type(error).__name__
        raise ConnectionError(f"no answer within {HUB_TIMEOUT:g} s" if late else str(error))
