"""Limits of the HTTP server: number of connections, time until a request's headers arrive, and repeated log lines.

Any local process can open connections and send nothing. uvicorn has no timeout for the first request, and each
connection takes a file descriptor.
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

_MAX_CONNECTIONS: Final = 128
"""Maximum concurrent connections. A browser opens 6. Above the limit, the longest idle one is closed."""
_HEADER_SECONDS: Final = 10.0
"""Maximum seconds from the start of a connection, or its last response, to the complete headers of a request."""
_BACKLOG: Final = 64
_MAX_LINES: Final = 5
"""Maximum log lines of one kind."""


def new_server(app: ASGIApp) -> uvicorn.Server:
    """Return a server for the studio's app; it is not running yet."""
    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        h11_max_incomplete_event_size=64 << 10,
    )
    for name in ("uvicorn.error", "asyncio"):  # asyncio logs connections that can't be accepted
        get_logger(name).addFilter(_RepeatFilter())
    return uvicorn.Server(config)


class LimitedProtocol(H11Protocol):
    """uvicorn's protocol with the limits."""

    _timer: asyncio.TimerHandle | None = None
    _waits_since = 0.0

    @property
    def waits(self) -> bool:
        """Whether the connection is idle."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waits_since = self.loop.time()
        self._look()
        alive = [one for one in self.connections if isinstance(one, LimitedProtocol) and not one.transport.is_closing()]
        if len(alive) > _MAX_CONNECTIONS and (others := [one for one in alive if one.waits and one is not self]):
            min(others, key=lambda one: one._waits_since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._waits_since = self.loop.time()
        super().on_response_complete()

    def _look(self) -> None:
        left = self._waits_since + _HEADER_SECONDS - self.loop.time() if self.waits else _HEADER_SECONDS
        if left <= 0:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(left, self._look)


class _RepeatFilter(logging.Filter):
    """Log each kind of line at most `_MAX_LINES` times."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[Any, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind: Any = (str(record.msg)[:100], record.exc_info[0] if record.exc_info else None)
        if kind not in self._seen and len(self._seen) >= 100:
            kind = None
        self._seen[kind] = count = self._seen.get(kind, 0) + 1
        if count == _MAX_LINES:
            record.msg = f"{record.msg} (further lines like this are not logged)"
        return count <= _MAX_LINES
