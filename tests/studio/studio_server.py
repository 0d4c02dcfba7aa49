"""The real server of the review page, in a thread, that can be stopped and started again at the same address."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calotype.config import load_config
from calotype.studio.connections import new_server
from calotype.studio.guard import Codes
from calotype.studio.server import create_app
from calotype.studio.studio import Studio

TOKEN = "a-token-that-only-this-test-has"


class Served:
    """A dataset under review at an address.

    Args:
        source: A folder, a data file or a config.
        overrides: `key=value` for its config.
    """

    def __init__(self, source: Path, *overrides: str) -> None:
        self.source = source
        self._config = load_config(str(source), list(overrides))
        self._port = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def address(self) -> str:
        """What the command would print."""
        return f"{self.origin}/?code={self._codes.current}"

    def start(self) -> None:
        """Reads the dataset anew, and serves it where it was before."""
        studio = Studio(self._config, file=self.source if self.source.suffix == ".yaml" else None)
        listening = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._port = listening.getsockname()[1]
        self._codes = Codes()
        app = create_app(studio, token=TOKEN, codes=self._codes, port=self._port)
        self._server = new_server(app)
        self._thread = threading.Thread(target=self._run, args=(listening,), daemon=True)
        self._thread.start()

    def _run(self, listening: socket.socket) -> None:
        with listening:
            self._server.run(sockets=[listening])

    def stop(self) -> None:
        """Whoever asks is refused from now on."""
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextmanager
def served(source: Path, *overrides: str) -> Iterator[Served]:
    """Until the end of the block."""
    server = Served(source, *overrides)
    server.start()
    try:
        yield server
    finally:
        server.stop()
