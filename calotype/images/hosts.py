"""`Hosts`: how many requests each host has at a time, how long it asked to wait, and which hosts do not answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from calotype.terminal import get_logger, time_text

__all__ = ["HostDownError", "Hosts"]

_log = get_logger(__name__)

_LEAST: Final = 2
"""Requests in a row without an answer, at least, before a host is given up."""
_SILENT: Final = 10.0
"""Seconds without an answer after which a host is given up, if others answered meanwhile."""
_SILENT_ALONE: Final = 60.0
"""The same if no host answered: it may be this machine's connection."""
_PAUSE: Final = 60.0
"""Seconds until a host that was given up is sent one request again."""


class HostDownError(Exception):
    """A host was given up for a while: no request is sent to it."""


@dataclass(slots=True)
class _Silence:
    """Requests to a host in a row that had no answer."""

    since: float
    """When the first of them began."""
    requests: int = 0
    until: float = 0.0
    """When the next request may be sent, once the host is given up."""


class Hosts:
    """Limits the requests to each host, for all threads of this process.

    A host is given up if several requests in a row had no answer (no connection, a timeout, a broken connection) for
    10 seconds in which other hosts answered, or for 60. Then one request a minute finds out whether it is back.

    Args:
        most: Requests to one host at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._active: Counter[str] = Counter()
        self._until: dict[str, float] = {}
        """Host → the time, on the clock of `time.monotonic`, before which no new request is sent to it."""
        self._silent: dict[str, _Silence] = {}
        self._answered = 0.0
        """When any host answered last."""

    @contextmanager
    def turn(self, host: str, *, retry: bool) -> Iterator[None]:
        """Wait until a request to a host may be sent; the end of the block ends the request.

        Args:
            host: Its name and port.
            retry: Whether this thread has waited as long as the host asked.

        Raises:
            HostDownError: The host was given up.
        """
        with self._changed:
            wait = 0.0 if retry else self._until.get(host, 0.0) - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        with self._changed:
            self._changed.wait_for(lambda: self._active[host] < self._most or self._is_down(host))
            if self._is_down(host):
                silence = self._silent[host]
                raise HostDownError(f"{silence.requests} requests in a row to {host} had no answer")
            if (known := self._silent.get(host)) is not None and known.until:
                known.until = time.monotonic() + _PAUSE  # this request finds out for all
            self._active[host] += 1
        try:
            yield
        finally:
            with self._changed:
                self._active[host] -= 1
                if not self._active[host]:
                    del self._active[host]
                self._changed.notify_all()

    def pause(self, host: str, seconds: float) -> None:
        """Send no new request to a host for some seconds."""
        with self._changed:
            self._until[host] = max(self._until.get(host, 0.0), time.monotonic() + seconds)

    def answered(self, host: str) -> None:
        """Note that a host answered, whatever it said."""
        self._answered = time.monotonic()
        if host in self._silent:
            with self._changed:
                self._silent.pop(host, None)

    def failed(self, host: str, begun: float, reason: str) -> None:
        """Note that a request had no answer, and give the host up where that is often enough.

        Args:
            host: Its name and port.
            begun: When the request was sent.
            reason: Why there was no answer.
        """
        now = time.monotonic()
        with self._changed:
            silence = self._silent.setdefault(host, _Silence(begun))
            silence.requests += 1
            seconds = now - silence.since
            long = _SILENT if self._answered > silence.since else _SILENT_ALONE
            if silence.requests < _LEAST or seconds < long or silence.until > now:
                return
            first = not silence.until
            silence.until = now + _PAUSE
            self._changed.notify_all()
        if first:
            _log.warning(
                "%s: no answer for %s (%s); its images fail at once, and it is asked again every %s",
                host,
                time_text(seconds),
                reason,
                time_text(_PAUSE),
            )

    def _is_down(self, host: str) -> bool:
        """Whether a host is given up now. The lock is held."""
        silence = self._silent.get(host)
        return silence is not None and silence.until > time.monotonic()
