"""`FailureLimit`: ends a run in which nothing has ever succeeded, before it has failed for every image."""

from __future__ import annotations

import threading
from typing import Final

from calotype.errors import CaptionError

__all__ = ["FailureLimit"]

_HOPELESS: Final = 10
"""When so many images have failed and none has ever succeeded, the fault is not the images'."""


class FailureLimit:
    """Counts failures until there is an answer. Safe from any number of threads.

    Args:
        where: Who is asked, as an error should call it.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._failures = 0
        self._lock = threading.Lock()
        self.answered = False
        """Whether there has ever been an answer, be it one without a caption in it."""

    def count_failure(self, reason: str) -> None:
        """Takes note of an image that came to nothing.

        Raises:
            CaptionError: It is one too many.
        """
        with self._lock:
            self._failures += 1
            hopeless = self._failures >= _HOPELESS and not self.answered
        if hopeless:
            raise CaptionError(f"{self._where}: the first {_HOPELESS} images all came to nothing; {reason}")
