"""How much client CPU does fetching take? 250 KB images over TLS from loopback, one thread, kept alive or not.

    python benchmarks/fetch.py [requests]

Needs the `openssl` command for a certificate. The server is a separate process, so only the client is counted.
"""

from __future__ import annotations

import multiprocessing
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

from calotype.images import Downloads, Fetcher

BODY = b"\xff\xd8\xff\xe0" + os.urandom(250_000)  # begins as a JPEG does, which is as far as fetching looks
ROUNDS = 3


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)


def serve(folder: str, ready: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    ready.send(server.server_address[1])
    server.serve_forever()


def urllib_each(url: str) -> bytes:
    """As `requests.get(url)` or `urlopen(url)` in a loop: a context, a handshake and a connection per request."""
    with urllib.request.urlopen(url, context=ssl.create_default_context()) as response:
        data: bytes = response.read()
    return data


def urllib_shared(url: str, context: ssl.SSLContext) -> bytes:
    with urllib.request.urlopen(url, context=context) as response:
        data: bytes = response.read()
    return data


def cpu_ms(get: Callable[[str], bytes], base: str, count: int) -> float:
    get(f"{base}/warm")
    start = time.process_time()
    for index in range(count):
        assert len(get(f"{base}/{index}")) == len(BODY)
    return (time.process_time() - start) / count * 1000


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder:
        command = (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
        )
        files = ["-out", f"{folder}/cert.pem", "-keyout", f"{folder}/key.pem"]
        subprocess.run([*command.split(), *files], check=True, capture_output=True)
        # The system's certificates with ours behind them: loading them all is what a context per request pays for.
        system = ssl.get_default_verify_paths().cafile
        bundle = Path(system).read_bytes() if system else b""
        Path(folder, "all.pem").write_bytes(bundle + Path(folder, "cert.pem").read_bytes())
        os.environ["SSL_CERT_FILE"] = f"{folder}/all.pem"
        here, there = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, there), daemon=True)
        server.start()
        base = f"https://127.0.0.1:{here.recv()}"
        fetcher = Fetcher(allow_private=True)
        kept = Fetcher(allow_private=True, downloads=Downloads(f"{folder}/downloads"))
        context = ssl.create_default_context()
        for index in range(count):
            kept.get(f"{base}/{index}")
        ways: dict[str, Callable[[str], bytes]] = {
            "urllib, a context per request": urllib_each,
            "urllib, one context": lambda url: urllib_shared(url, context),
            "Fetcher, kept alive": fetcher.get,
            "Fetcher, from Downloads": kept.get,
        }
        results: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, get in ways.items():
                results[name].append(cpu_ms(get, base, count))
        server.terminate()
    baseline = statistics.median(results["urllib, a context per request"])
    print(f"client CPU per {len(BODY) / 1000:.0f} kB, median of {ROUNDS} rounds of {count}")
    print(f"the system's certificates are a file of {len(bundle):,} bytes")
    for name, values in results.items():
        median = statistics.median(values)
        print(f"{name:32} {median:7.2f} ms   {baseline / median:6.1f} x")


if __name__ == "__main__":
    main()
