"""A web server on loopback that answers each request after a delay: what fetching waits for over a network.

    python benchmarks/_slow_server.py FILE [FILE …] [--delay SECONDS]

Prints its port, and runs until its standard input ends. `/N` is file N modulo their number; byte ranges are answered as
such; `/missing/…` is 404. Bare asyncio, so that thousands of requests per second take little of the machine's time.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from pathlib import Path

RANGE = re.compile(rb"^range: *bytes=(\d+)-(\d*)\r$", re.IGNORECASE | re.MULTILINE)


class Answers(asyncio.Protocol):
    """One connection, kept alive; requests are answered in their order."""

    def __init__(self, bodies: list[bytes], delay: float) -> None:
        self.bodies, self.delay = bodies, delay
        self.received = b""
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            self.loop.call_later(self.delay, self.answer, head + b"\r")

    def answer(self, head: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path.startswith(b"/missing"):
            self.transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        body = self.bodies[int(path.rpartition(b"/")[2]) % len(self.bodies)]
        status, more = b"200 OK", b""
        if (found := RANGE.search(head)) is not None and int(found[1]) < len(body):
            first, last = int(found[1]), min(int(found[2] or len(body)), len(body) - 1)
            status, more = b"206 Partial Content", b"content-range: bytes %d-%d/%d\r\n" % (first, last, len(body))
            body = body[first : last + 1]
        head = b"HTTP/1.1 %s\r\ncontent-type: image/jpeg\r\n%scontent-length: %d\r\n\r\n" % (status, more, len(body))
        self.transport.write(head + body)


async def serve(files: list[Path], delay: float) -> None:
    bodies = [file.read_bytes() for file in files]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answers(bodies, delay), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--delay", type=float, default=0.05)
    options = parser.parse_args()
    asyncio.run(serve(options.files, options.delay))


if __name__ == "__main__":
    main()
