"""Connections that say nothing, or say it slowly: the page still loads, and the log stays short."""

import contextlib
import logging
import socket
import time
import urllib.error
import urllib.request

import pytest
from studio_server import served

from calotype.studio import connections


@pytest.fixture
def server(folder):
    with served(folder) as server:
        yield server


@contextlib.contextmanager
def opened(server, count, *, say=b""):
    """Connections whose requests never come to an end."""
    port = int(server.origin.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        links = []
        for _ in range(count):
            link = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            with contextlib.suppress(OSError):
                link.sendall(say)
            links.append(link)
        yield links


def loads(server):
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(server.address, timeout=20) as page:
        assert page.status == 200 and b"calotype" in page.read()
    with browser.open(f"{server.origin}/api/rows", timeout=20) as answer:
        assert answer.status == 200
    return True


def closed(link):
    try:
        return link.recv(1) == b""
    except OSError:
        return True


def ended(link):
    try:
        return link.recv(1) == b""
    except BlockingIOError:
        return False


@pytest.mark.parametrize("say", [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "], ids=["silent", "slow"])
def test_two_hundred_that_wait_do_not_keep_a_browser_out(server, say, caplog):
    with opened(server, 200, say=say) as links:
        assert loads(server)
        assert len(server._server.server_state.connections) <= connections._MAX_CONNECTIONS
        assert all(map(closed, links[:60]))  # those that have waited longest made room
        for link in links[100:]:
            link.settimeout(0)
        assert not any(map(ended, links[100:]))
    assert len(caplog.records) <= connections._MAX_LINES


def test_whoever_does_not_finish_its_headers_is_cut_off(server, monkeypatch):
    monkeypatch.setattr(connections, "_HEADER_SECONDS", 0.3)
    with opened(server, 3, say=b"GET / HTTP/1.1\r\n") as links:
        for _ in range(20):  # a byte now and then does not help
            with contextlib.suppress(OSError):
                links[0].sendall(b"X")
            time.sleep(0.02)
        assert all(map(closed, links))
    assert loads(server)


def test_a_body_that_nobody_asked_for_does_not_keep_a_connection(server, monkeypatch):
    monkeypatch.setattr(connections, "_HEADER_SECONDS", 0.3)
    host = server.origin.removeprefix("http://")
    head = f"POST /api/edit HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n".encode()
    with opened(server, 1, say=head) as (link,):
        assert link.recv(4096).startswith(b"HTTP/1.1 401")
        link.settimeout(0.02)
        end = time.monotonic() + 20
        cut = False
        while not cut and time.monotonic() < end:
            try:
                link.sendall(b"x")
                cut = link.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                cut = True
        assert cut


def test_a_request_that_is_being_answered_is_not_cut_off(server, monkeypatch):
    monkeypatch.setattr(connections, "_HEADER_SECONDS", 0.05)
    request = urllib.request.Request(f"{server.origin}/api/rows", headers={"Authorization": "Bearer wrong"})
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(request, timeout=20)
    refused.value.close()


def test_lines_of_one_kind_are_few(server, caplog):
    for _ in range(3 * connections._MAX_LINES):
        with opened(server, 1, say=b"\x00 no HTTP \x1b[2J\r\n\r\n") as (link,):
            link.recv(4096)
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.error"]
    assert 1 <= len(lines) <= connections._MAX_LINES and "not logged" in lines[-1]


def test_an_error_in_a_loop_is_few_lines_too(caplog):
    logger = logging.getLogger("calotype.test.seldom")
    logger.addFilter(connections._RepeatFilter())
    for number in range(300):
        logger.warning(f"kind {number}")
        logger.warning("socket.accept() out of system resource")
    assert len(caplog.records) <= 100 + 2 * connections._MAX_LINES
