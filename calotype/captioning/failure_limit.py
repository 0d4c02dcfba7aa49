"""`FailureLimit`: end a run in which the first images all fail, instead of failing for every image."""

from __future__ import annotations

import threading
from typing import Final

from calotype.errors import CaptionError

__all__ = ["FailureLimit"]

_LIMIT: Final = 10
"""Failures without a success after which the cause is assumed to be the backend, not the images."""


class FailureLimit:
    """Counts failures until the first success. Thread-safe.

    Args:
        where: Name of the server or model, for the error.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._failures = 0
        self._lock = threading.Lock()
        self.succeeded = False
        """Whether the backend has returned an answer so far, with or without a caption."""

    def count_failure(self, reason: str) -> None:
        """Count an image that failed.

        Raises:
            CaptionError: The limit is reached.
        """
        with self._lock:
            self._failures += 1
            reached = self._failures >= _LIMIT and not self.succeeded
        if reached:
            raise CaptionError(f"{self._where}: the first {_LIMIT} images all failed; {reason}")
