"""Connections that wait are not waited for: limits on their number, on the time of their headers, and on log lines.

Whoever can reach the port can open connections and say nothing, or a byte a minute. uvicorn waits for their first
request without end, and each of them is an open file of the process.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from calotype.terminal import get_logger

__all__ = ["new_server"]

_MOST: Final = 128
"""Connections at once. A browser opens 6; where there are more, the one that has waited longest makes room."""
_SECONDS: Final = 10.0
"""From its opening, or its last answer, until the headers of its next request are there."""
_BACKLOG: Final = 64
_LINES: Final = 5
"""Of one kind in the log."""


def new_server(app: ASGIApp) -> uvicorn.Server:
    """Return a server for the studio's app, yet to be run."""
    config = uvicorn.Config(
        app,
        http=Impatient,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        h11_max_incomplete_event_size=64 << 10,
    )
    for name in ("uvicorn.error", "asyncio"):  # the latter's say that no connection can be accepted
        get_logger(name).addFilter(_Seldom())
    return uvicorn.Server(config)


class Impatient(H11Protocol):
    """uvicorn's own protocol, with the limits."""

    _timer: asyncio.TimerHandle | None = None
    _waits_since = 0.0

    @property
    def waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waits_since = self.loop.time()
        self._look()
        alive = [one for one in self.connections if isinstance(one, Impatient) and not one.transport.is_closing()]
        if len(alive) > _MOST and (others := [one for one in alive if one.waits and one is not self]):
            min(others, key=lambda one: one._waits_since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._waits_since = self.loop.time()
        super().on_response_complete()

    def _look(self) -> None:
        left = self._waits_since + _SECONDS - self.loop.time() if self.waits else _SECONDS
        if left <= 0:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(left, self._look)


class _Seldom(logging.Filter):
    """Lets each kind of line through a few times."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[Any, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind: Any = (str(record.msg)[:100], record.exc_info[0] if record.exc_info else None)
        if kind not in self._seen and len(self._seen) >= 100:
            kind = None
        self._seen[kind] = count = self._seen.get(kind, 0) + 1
        if count == _LINES:
            record.msg = f"{record.msg} (further lines like this one are left out)"
        return count <= _LINES
