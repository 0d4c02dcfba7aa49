"""A studio over a real folder of photos, and a client that has its token."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.testclient import TestClient

from calotype.config import load_config
from calotype.studio.guard import Codes
from calotype.studio.server import create_app
from calotype.studio.studio import Studio

PORT = 8123
TOKEN = "a-token-of-these-tests"
ADDRESS = f"http://127.0.0.1:{PORT}"


class Client(TestClient):
    """Asks as the page does."""

    studio: Studio
    codes: Codes

    def read(self, path: str, status: int = 200) -> dict[str, Any]:
        answer = self.get(f"/api/{path}")
        assert answer.status_code == status, answer.text
        return answer.json()

    def do(self, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
        answer = self.post(f"/api/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def row(self, id: str) -> dict[str, Any]:
        """What is known of one image."""
        number = self.studio.rows.number_of(id)
        assert number is not None, id
        return self.read(f"rows/details?numbers={number}")["rows"][0]

    def edit(self, id: str, *captions: str, status: int = 200, **more: Any) -> dict[str, Any]:
        row = self.row(id)
        edit = {"n": row["n"], "version": row["version"], "captions": list(captions)}
        return self.do("edit", status, edits=[edit], **more)

    def found(self, filter: str, sort: str = "order") -> list[str]:
        """The ids that a filter keeps, once all is known that it asks for."""
        deadline = time.monotonic() + 30
        while True:
            answer = self.get("/api/rows", params={"filter": filter, "sort": sort}).json()
            if not answer["pending"]:
                return [self.studio.rows.ids[n] for n in answer["numbers"]]
            assert time.monotonic() < deadline, answer
            time.sleep(0.02)

    def look(self, since: int) -> dict[str, Any]:
        """What has changed, the disk looked at just now."""
        self.studio.watcher.look(at_once=True)
        return self.read(f"changes?since={since}")


@contextmanager
def reviewing(source: Any, *overrides: str) -> Iterator[Client]:
    """A studio that runs."""
    file = source if str(source).endswith(".yaml") else None
    codes = Codes()
    studio = Studio(load_config(str(source), list(overrides)), file=file)
    with Client(
        create_app(studio, token=TOKEN, codes=codes, port=PORT),
        base_url=ADDRESS,
        headers={"Authorization": f"Bearer {TOKEN}"},
        raise_server_exceptions=False,
    ) as client:
        client.studio, client.codes = studio, codes
        yield client
