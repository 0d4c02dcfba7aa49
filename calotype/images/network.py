"""`Network`: the connections, limits and fetches of a `Fetcher` in this process."""

from __future__ import annotations

import os
import threading
from typing import Any

import urllib3

from calotype.images.ahead import FetchAhead
from calotype.images.connect import new_pool
from calotype.images.hosts import Hosts

__all__ = ["Network"]


class Network:
    """The connections of this process. Copies and forked children make new ones: sockets and locks can't be shared."""

    def __init__(self, connections: int, per_host: int) -> None:
        self._connections, self._per_host = connections, per_host
        self._renew()

    def _renew(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._pool: urllib3.PoolManager | None = None
        self._hosts = Hosts(self._per_host)
        self._ahead: FetchAhead | None = None

    def pool(self) -> urllib3.PoolManager:
        self._check_owner()
        with self._lock:
            if self._pool is None:
                self._pool = new_pool(connections=min(self._connections, self._per_host))
            return self._pool

    def ahead(self) -> FetchAhead:
        self._check_owner()
        with self._lock:
            if self._ahead is None:
                self._ahead = FetchAhead(self._connections)
            return self._ahead

    def hosts(self) -> Hosts:
        self._check_owner()
        return self._hosts

    def _check_owner(self) -> None:
        if self._owner != os.getpid():
            self._renew()  # the parent's locks may have been held when it forked

    def __reduce__(self) -> Any:
        return Network, (self._connections, self._per_host)
