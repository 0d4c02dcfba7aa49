"""An OpenAI-compatible server on loopback whose answers, good and bad, a test writes down."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the server does with one request."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    missing: int = 0
    """So many of the announced bytes never come: the connection is cut before."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request for a caption, as it came in."""

    body: dict[str, Any]
    headers: dict[str, str]
    times: int
    """How often the same prompt had been asked before."""

    @property
    def prompt(self) -> str:
        return self.body["messages"][-1]["content"][-1]["text"]

    @property
    def image(self) -> Image.Image:
        url = self.body["messages"][-1]["content"][0]["image_url"]["url"]
        return Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1])))


def completion(content: Any, finish_reason: str | None = "stop", **message: Any) -> Reply:
    """A chat completion."""
    choice = {"index": 0, "finish_reason": finish_reason}
    choice["message"] = {"role": "assistant", "content": content, **message}
    return Reply(body=json.dumps({"object": "chat.completion", "choices": [choice]}).encode())


def failure(status: int, message: str = "", **headers: str) -> Reply:
    """An error as OpenAI words it."""
    body = json.dumps({"error": {"message": message, "type": "error"}}).encode()
    return Reply(status=status, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def describe(asked: Asked) -> Reply:
    """A caption that tells images and prompts apart."""
    return completion(f"{asked.prompt}: an image of {asked.image.width} by {asked.image.height} pixels")


class CaptionServer(ThreadingHTTPServer):
    """Answers `/v1/models` with `models`, and requests for captions with what `respond` gives."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, respond: Callable[[Asked], Reply], models: tuple[str, ...] | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond, self.models = respond, models
        self.asked: list[Asked] = []
        self.connections = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that lose patience hang up


class _Handler(BaseHTTPRequestHandler):
    server: CaptionServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self.reply(failure(404, "Not Found"))
        if self.server.models is None:
            return self.reply(failure(500, "Internal Server Error"))
        listed = {"object": "list", "data": [{"id": model, "object": "model"} for model in self.server.models]}
        return self.reply(Reply(body=json.dumps(listed).encode()))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self.reply(failure(404, "Not Found"))
        with self.server.lock:
            asked = Asked(body=body, headers=dict(self.headers), times=0)
            times = sum(before.prompt == asked.prompt for before in self.server.asked)
            asked = Asked(body=body, headers=asked.headers, times=times)
            self.server.asked.append(asked)
        return self.reply(self.server.respond(asked))

    def reply(self, reply: Reply) -> None:
        time.sleep(reply.delay)
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: len(reply.body) - reply.missing])
        self.wfile.flush()
        if reply.missing:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(
    respond: Callable[[Asked], Reply] = describe, models: tuple[str, ...] | None = ("tiny-vl",)
) -> Iterator[CaptionServer]:
    """A server that answers so, until the end of the block; with `models=None` it can't say which models it has."""
    server = CaptionServer(respond, models)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
