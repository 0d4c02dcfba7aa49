"""Hosts that refuse, hang or reset, among others that answer: what they cost, and what is said of them."""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from calotype.core import retry
from calotype.errors import FetchError
from calotype.images import Fetcher, ImageReader, hosts, scan_sizes
from calotype.images.hosts import HostDownError, Hosts
from calotype.types import ImageRef

SILENT, ALONE, PAUSE = 0.3, 1.2, 0.6


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.05)
    monkeypatch.setattr(hosts, "_SILENT", SILENT)
    monkeypatch.setattr(hosts, "_SILENT_ALONE", ALONE)
    monkeypatch.setattr(hosts, "_PAUSE", PAUSE)


@contextmanager
def refusing() -> Iterator[tuple[str, list[int]]]:
    """An address of this machine with nobody behind it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"127.0.0.1:{port}", []


@contextmanager
def accepting(end: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[int]]]:
    """A server that never answers, and the numbers of its connections."""
    accepted: list[int] = []
    open_: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:

        def run() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                accepted.append(len(accepted))
                open_.append(connection)
                end(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", accepted
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in open_:
            connection.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


DEAD = {"refuses": refusing, "hangs": lambda: accepting(lambda _: None), "resets": lambda: accepting(reset)}


@pytest.mark.parametrize("how", DEAD)
def test_a_dead_host_is_asked_a_few_times_and_named_once(serve, how, caplog, tmp_path, monkeypatch):
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path))
    alive = serve()
    fetcher = Fetcher(allow_private=True, read_timeout=SILENT, connections=8)
    with DEAD[how]() as (dead, accepted):
        urls = [f"http://{dead}/{n}" if n % 3 == 0 else f"{alive.url}/picture/{n}" for n in range(240)]
        refs = [ImageRef(name=url, url=url) for url in urls]
        with caplog.at_level(logging.WARNING):
            sizes, errors = scan_sizes(refs, ImageReader(fetcher=fetcher))
    assert [index for index, _ in errors] == list(range(0, 240, 3)) and (sizes[1::3] > 0).all()
    assert len(accepted) < 80, "of 320 attempts at 80 images"
    (warning,) = [record.message for record in caplog.records if dead in record.message]
    assert "no answer for" in warning and "its images fail at once" in warning
    down = [error for _, error in errors if error.why == "host down"]
    assert len(down) > 40 and f"requests in a row to {dead} had no answer" in str(down[-1])


def test_many_dead_hosts_take_two_attempts_each(serve):
    """One image of each, as in a list of URLs from the web."""
    alive = serve()
    fetcher = Fetcher(allow_private=True, read_timeout=SILENT, retries=9)
    with ExitStack() as stack:
        dead = [stack.enter_context(DEAD["hangs"]()) for _ in range(3)]
        stop = threading.Event()

        def others() -> None:
            while not stop.wait(0.02):
                fetcher.fetch(f"{alive.url}/picture/b")

        answering = threading.Thread(target=others, daemon=True)
        answering.start()
        for host, accepted in dead:
            with pytest.raises(FetchError, match=r"nothing came for .*; \d+ requests in a row to .* had no answer"):
                fetcher.fetch(f"http://{host}/a")
            assert len(accepted) <= 3
        stop.set()
        answering.join()


def test_alone_a_host_is_given_up_later_so_that_a_short_outage_costs_little():
    """Nothing else answers: it may be this machine's connection."""
    one = Hosts(4)
    now = hosts.time.monotonic()
    one.failed("a", now - SILENT, "timeout")
    one.failed("a", now, "timeout")
    with one.turn("a", retry=False):
        pass
    one.answered("b")
    one.failed("a", now, "timeout")
    with pytest.raises(HostDownError, match="3 requests in a row to a had no answer"), one.turn("a", retry=False):
        pass
    two = Hosts(4)
    two.failed("a", now - ALONE, "timeout")
    two.failed("a", now, "timeout")
    with pytest.raises(HostDownError), two.turn("a", retry=False):
        pass


def test_after_a_while_one_request_finds_out_for_all(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(hosts.time, "monotonic", lambda: clock[0])
    some = Hosts(4)
    some.failed("a", clock[0] - ALONE, "timeout")
    some.failed("a", clock[0], "timeout")
    clock[0] += PAUSE + 0.1
    with some.turn("a", retry=False):
        with pytest.raises(HostDownError), some.turn("a", retry=False):
            pass
        some.answered("a")
        with some.turn("a", retry=False):
            pass


def test_an_error_status_is_an_answer(serve):
    """A host whose images are all gone is not down."""
    server = serve()
    fetcher = Fetcher(allow_private=True, retries=0)
    fetcher._network.hosts().failed(server.url.removeprefix("http://"), hosts.time.monotonic() - ALONE, "timeout")
    for status in ("404", "500"):
        with pytest.raises(FetchError, match=f"answered {status}"):
            fetcher.fetch(f"{server.url}/status/{status}")
    assert not fetcher._network.hosts()._silent
