"""`Fetcher` against a real HTTP server on loopback that misbehaves in every way we know."""

from __future__ import annotations

import contextlib
import pickle
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import cloudpickle
import pytest

from calotype.config.dataset import DatasetConfig
from calotype.core import retry
from calotype.errors import ConfigError, FetchError, ImageError
from calotype.images import Fetcher, ImageReader
from calotype.images import connect as connect_module
from calotype.images import fetch as fetch_module
from calotype.images.connect import is_public, redact
from calotype.types import ImageRef


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)


@pytest.fixture
def server(serve):
    return serve()


def local(**options) -> Fetcher:
    return Fetcher(**({"allow_private": True, "timeout": 10, "read_timeout": 5} | options))


def test_a_image_and_what_is_said_to_the_server(server):
    assert local().fetch(f"{server.url}/picture/a.jpg?size=1") == server.picture
    asked = server.headers["/picture/a.jpg"]
    assert asked["user-agent"].startswith("calotype/")
    assert asked["accept-encoding"] == "identity"
    assert "authorization" not in asked
    local(user_agent="me").fetch(f"{server.url}/picture/a.jpg")
    assert server.headers["/picture/a.jpg"]["user-agent"] == "me"


def test_the_reader_decodes_what_is_fetched(server):
    url = f"{server.url}/picture/a.jpg"
    reader = ImageReader(fetcher=local())
    assert reader.read(ImageRef(name=url, url=url)).pixels.shape == (149, 203, 3)
    assert reader.header(ImageRef(name=url, url=url)).bytes == len(server.picture)


# -------------------------------------------------------------------------------------------------------- connections


def test_connections_are_kept_alive(server):
    fetcher = local()
    for index in range(20):
        assert fetcher.fetch(f"{server.url}/picture/{index}") == server.picture
    assert server.connections == 1
    for path in ("/missing", "/status/403", "/to/x"):
        server.state["to"] = "/picture/a"
        with contextlib.suppress(FetchError):
            fetcher.fetch(server.url + path)
    assert server.connections == 1  # error pages and redirects are read away


def test_threads_share_the_pool(server):
    fetcher = local()
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(fetcher.fetch, [f"{server.url}/picture/{index}" for index in range(200)]))
    assert all(body == server.picture for body in bodies)
    assert server.connections <= 8


def test_https_with_one_context_for_all(serve, certificate, monkeypatch):
    pem, _ = certificate
    server = serve(certificate=certificate)
    with pytest.raises(FetchError, match=r"its TLS certificate is not trusted.*SSL_CERT_FILE"):
        local().fetch(f"{server.url}/picture/a")
    assert server.requests["/picture/a"] == 0
    refused = server.connections
    assert refused == 1  # a certificate does not get better by trying again
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    contexts = []
    create = connect_module.ssl.create_default_context
    monkeypatch.setattr(connect_module.ssl, "create_default_context", lambda: contexts.append(1) or create())
    fetcher = local()
    with ThreadPoolExecutor(4) as pool:
        bodies = list(pool.map(fetcher.fetch, [f"{server.url}/picture/{index}" for index in range(40)]))
    assert all(body == server.picture for body in bodies)
    assert server.connections - refused <= 4
    assert len(contexts) == 1


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_a_fetcher_travels_by_pickle_without_its_connections(server, pickler):
    fetcher = local(retries=1, user_agent="me")
    fetcher.fetch(f"{server.url}/picture/a")
    copy = pickle.loads(pickler.dumps(fetcher))
    assert copy.fetch(f"{server.url}/picture/a") == server.picture
    assert (copy.retries, copy.user_agent, copy.allow_private) == (1, "me", True)
    assert server.connections == 2


# ------------------------------------------------------------------------------------------------------------ retries


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server, status):
    assert local().fetch(f"{server.url}/flaky/{status}/2") == server.picture
    assert server.requests[f"/flaky/{status}/2"] == 3


def test_trying_again_has_an_end(server):
    with pytest.raises(FetchError, match=r"the server answered 500 Internal Server Error \(tried 3 times\)"):
        local(retries=2).fetch(f"{server.url}/status/500")
    assert server.requests["/status/500"] == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451, 501])
def test_other_answers_are_final(server, status):
    with pytest.raises(FetchError, match=f"the server answered {status} "):
        local().fetch(f"{server.url}/status/{status}")
    assert server.requests[f"/status/{status}"] == 1


@pytest.mark.parametrize("status", [204, 206])
def test_an_odd_success_is_no_image(server, status):
    with pytest.raises(FetchError, match=f"the server answered {status} "):
        local().fetch(f"{server.url}/status/{status}")


def test_a_server_may_ask_for_patience(server, monkeypatch):
    waits = []
    monkeypatch.setattr(fetch_module.time, "sleep", waits.append)
    server.state["retry_after"] = "7"
    local().fetch(f"{server.url}/flaky/429/1")
    server.state["retry_after"] = formatdate(time.time() + 6, usegmt=True)
    local().fetch(f"{server.url}/flaky/503/1")
    server.state["retry_after"] = "86400"
    local(timeout=600).fetch(f"{server.url}/flaky/500/1")
    server.state["retry_after"] = "tomorrow, perhaps"
    local().fetch(f"{server.url}/flaky/502/1")
    assert waits[0] == 7
    assert 4 < waits[1] <= 6
    assert waits[2] == fetch_module._LONGEST_WAIT
    assert 0 < waits[3] < 0.1


def test_a_wait_beyond_the_time_limit_is_not_begun(server, monkeypatch):
    server.state["retry_after"] = "20"
    waits = []
    monkeypatch.setattr(fetch_module.time, "sleep", waits.append)
    with pytest.raises(FetchError, match=r"answered 503 .*no more within timeout = 15 s"):
        local(timeout=15).fetch(f"{server.url}/flaky/503/1")
    assert waits == []


def test_waits_grow_and_differ(server, monkeypatch):
    waits = []
    monkeypatch.setattr(fetch_module.time, "sleep", waits.append)
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.5)
    with pytest.raises(FetchError):
        local(retries=5, timeout=600).fetch(f"{server.url}/status/500")
    assert len(waits) == 5
    assert all(0.5 * 2**n * 0.5 <= wait <= 0.5 * 2**n * 1.5 for n, wait in enumerate(waits))
    assert len({wait / 2**n for n, wait in enumerate(waits)}) > 1


@pytest.mark.parametrize("kind", ["cut", "cutchunk"])
def test_a_body_cut_off_half_way_is_an_error_not_half_a_image(server, kind):
    with pytest.raises(FetchError, match=r"tried 2 times"):
        local(retries=1).fetch(f"{server.url}/{kind}/99")
    assert server.requests[f"/{kind}/99"] == 2


def test_a_body_cut_off_once_is_fetched_again(server):
    assert local().fetch(f"{server.url}/cut/1") == server.picture


def test_garbage_instead_of_http(server):
    with pytest.raises(FetchError):
        local(retries=0).fetch(f"{server.url}/garbage")


def test_nobody_listens(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(FetchError, match=r"can't connect: .*refused \(tried 2 times\)"):
        local(retries=1).fetch(f"http://127.0.0.1:{port}/")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    with pytest.raises(FetchError, match="HTTPS_PROXY is set, but proxies are not used"):
        local(retries=0).fetch(f"http://127.0.0.1:{port}/")


def test_a_name_that_does_not_resolve_is_final():
    fetcher = local(retries=5)
    with pytest.raises(FetchError, match="does not resolve"):
        fetcher.fetch("http://no-such-host.invalid/a.jpg")


def test_a_name_server_that_is_busy_is_asked_again(server, monkeypatch):
    resolve, answers = socket.getaddrinfo, iter([False, True])

    def busy(*args, **options):
        if next(answers):
            return resolve(*args, **options)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(connect_module.socket, "getaddrinfo", busy)
    assert local().fetch(f"{server.url}/picture/a") == server.picture


def test_a_kept_connection_that_the_server_dropped_is_replaced(server):
    fetcher = local()
    for _ in range(10):
        assert fetcher.fetch(f"{server.url}/hangup") == server.picture


# -------------------------------------------------------------------------------------------------------------- limits


def test_silence_is_cut_and_tried_again(server):
    start = time.monotonic()
    with pytest.raises(FetchError, match=r"nothing came for read_timeout = 0\.2 s \(tried 2 times\)"):
        local(read_timeout=0.2, retries=1).fetch(f"{server.url}/silent")
    assert time.monotonic() - start < 15  # the server is silent for 20 s each time


@pytest.mark.parametrize("kind", ["slowbody", "slowheader"])
def test_an_endless_trickle_is_cut_by_the_total(server, kind):
    start = time.monotonic()
    with pytest.raises(FetchError, match=r"it took longer than timeout = 0\.6 s"):
        local(timeout=0.6).fetch(f"{server.url}/{kind}")
    assert 0.5 < time.monotonic() - start < 15
    assert server.requests[f"/{kind}"] == 1


def test_the_trickle_is_cut_over_tls_too(serve, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    server = serve(certificate=certificate)
    for kind in ("slowbody", "slowheader"):
        start = time.monotonic()
        with pytest.raises(FetchError, match=r"it took longer than timeout = 0\.6 s"):
            local(timeout=0.6).fetch(f"{server.url}/{kind}")
        assert time.monotonic() - start < 15


def test_the_limit_of_one_fetch_does_not_outlive_it(server):
    fetcher = local(timeout=1.5)
    fetcher.fetch(f"{server.url}/picture/a")
    time.sleep(1.6)
    assert fetcher.fetch(f"{server.url}/picture/b") == server.picture
    assert server.connections == 1


def test_a_stream_without_end_is_cut_by_size(server):
    with pytest.raises(FetchError, match="it has more than max_bytes = 1,000,000"):
        local(max_bytes=10**6).fetch(f"{server.url}/endless")


def test_a_huge_content_length_is_refused_before_it_is_read(server):
    with pytest.raises(FetchError, match="announces 1,000,000,000,000 bytes, more than max_bytes = 67,108,864"):
        local().fetch(f"{server.url}/huge")
    assert server.requests["/huge"] == 1


def test_exactly_max_bytes_is_allowed(server):
    assert local(max_bytes=len(server.picture)).fetch(f"{server.url}/picture/a") == server.picture
    with pytest.raises(FetchError, match="max_bytes"):
        local(max_bytes=len(server.picture) - 1).fetch(f"{server.url}/picture/a")


def test_compressed_and_chunked_bodies(server):
    assert local().fetch(f"{server.url}/gzip") == server.picture
    assert local().fetch(f"{server.url}/chunked") == server.picture
    with pytest.raises(FetchError, match="it has more than max_bytes"):
        local(max_bytes=10**6).fetch(f"{server.url}/gzipbomb")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("html", "answered 200 with Content-Type text/html; charset=utf-8: this is an HTML page, not an image: '<!DOC"),
        ("empty", "answered 200 with Content-Type image/jpeg: the file is empty"),
    ],
)
def test_what_is_no_image_is_said_with_its_content_type(server, path, reason):
    with pytest.raises(FetchError) as caught:
        local().fetch(f"{server.url}/{path}")
    assert reason in str(caught.value)
    assert server.requests[f"/{path}"] == 1


def test_a_image_under_a_wrong_content_type_is_a_image(server):
    assert local().fetch(f"{server.url}/mistyped") == server.picture


# ----------------------------------------------------------------------------------------------------------- redirects


def test_redirects_are_followed_up_to_the_limit(server):
    assert local(max_redirects=3).fetch(f"{server.url}/hops/3") == server.picture
    with pytest.raises(FetchError, match="redirects more than max_redirects = 2 times"):
        local(max_redirects=2).fetch(f"{server.url}/hops/3")
    with pytest.raises(FetchError, match="redirects more than max_redirects = 5 times"):
        local().fetch(f"{server.url}/loop")
    assert server.requests["/loop"] == 6


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://x", "data:,x", "http://[bad/"])
def test_a_redirect_to_anything_but_http_is_refused(server, to):
    server.state["to"] = to
    with pytest.raises(FetchError, match=r"redirects to .*only http:// and https://|not a valid URL"):
        local().fetch(f"{server.url}/to/x")


def test_a_redirect_to_a_private_address_is_refused(serve, monkeypatch):
    outside, inside = serve(), serve(host="127.0.0.2")
    monkeypatch.setattr(connect_module, "is_public", lambda address: address == "127.0.0.1")
    fetcher = local(allow_private=False)
    assert fetcher.fetch(f"{outside.url}/picture/a") == outside.picture
    outside.state["to"] = f"{inside.url}/picture/a"
    with pytest.raises(FetchError, match=r"it redirects to http://127\.0\.0\.2:\d+/picture/a: .* private"):
        fetcher.fetch(f"{outside.url}/to/x")
    assert inside.connections == 0


def test_a_password_is_not_sent_on_to_another_host(serve):
    first, second = serve(), serve()
    first.state["to"] = f"{second.url}/picture/b"
    url = first.url.replace("http://", "http://me:pass%20word@")
    local().fetch(f"{url}/to/x")
    assert first.headers["/to/x"]["authorization"] == "Basic bWU6cGFzcyB3b3Jk"
    assert "authorization" not in second.headers["/picture/b"]


# ----------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0",
        "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::", "2001:db8::1",
        "2001:0:0:0:0:0:80ff:fffe",
    ],
)  # fmt: skip
def test_private_addresses(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]
)
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0", "[::ffff:127.0.0.1]"],
)
def test_this_machine_is_not_reached_by_any_name(server, host):
    port = server.url.rpartition(":")[2]
    with pytest.raises(FetchError, match=r"private, loopback or reserved address.*allow_private|does not resolve"):
        Fetcher(timeout=5).fetch(f"http://{host}:{port}/picture/a")
    assert server.connections == 0


def test_a_name_that_resolves_to_this_machine_is_refused_and_one_that_changes_its_mind(serve, monkeypatch):
    inside = serve(host="127.0.0.2")
    outside = serve()
    port = int(outside.url.rpartition(":")[2])
    answers = iter([[("127.0.0.1", port)], [("127.0.0.2", int(inside.url.rpartition(":")[2]))]])
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in next(answers)]

    monkeypatch.setattr(connect_module.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(connect_module, "is_public", lambda address: address == "127.0.0.1")
    fetcher = Fetcher(timeout=5)
    # The address that was checked is the one that is connected to: the name is asked once.
    assert fetcher.fetch(f"http://rebinding.example:{port}/picture/a") == outside.picture
    assert asked == ["rebinding.example"]
    with pytest.raises(FetchError, match=r"other\.example is at 127\.0\.0\.2, a private"):
        fetcher.fetch(f"http://other.example:{port}/picture/a")
    assert inside.connections == 0


def test_of_several_addresses_a_working_public_one_is_used(server, monkeypatch):
    port = int(server.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.3", 0)) as dead:
        gone = dead.getsockname()[1]
    where = [("10.0.0.1", port), ("127.0.0.3", gone), ("127.0.0.1", port)]
    monkeypatch.setattr(
        connect_module.socket,
        "getaddrinfo",
        lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in where],
    )
    monkeypatch.setattr(connect_module, "is_public", lambda address: address.startswith("127."))
    assert Fetcher(timeout=5).fetch(f"http://many.example:{port}/picture/a") == server.picture


# --------------------------------------------------------------------------------------------------------------- words


def test_no_password_or_signature_in_an_error(server):
    host = server.url.removeprefix("http://")
    reader = ImageReader(fetcher=local(retries=0))
    for url in (
        f"http://me:hunter2@{host}/missing?X-Amz-Signature=hunter2&size=9",
        f"http://me:hunter2@{host}/loop?token=hunter2",
        "http://me:hunter2@no-such-host.invalid/a",
        "http://me:hunter2@[bad/a",
        f"gopher://me:hunter2@{host}/a",
        f"http://me:hunter2@{host}/html?sig=hunter2",
    ):
        with pytest.raises(ImageError) as caught:
            reader.read(ImageRef(name=url, url=url))
        told = []
        error: BaseException | None = caught.value
        while error is not None:
            told.append(f"{error} {error.args}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        assert "hunter2" not in " ".join(told)
    assert redact("https://u:p@h/a?size=9&Signature=s#x") == "https://***@h/a?size=9&Signature=***#x"
    assert redact("https://h/a@b?q=1 and http://h2/") == "https://h/a@b?q=1 and http://h2/"


@pytest.mark.parametrize("url", ["http://", "http:///a.jpg", "https://exa mple/a", "http://[::1/a", "http://h:99999/a"])
def test_a_url_that_is_none(url):
    with pytest.raises(FetchError):
        Fetcher(timeout=5, retries=0).fetch(url)


def test_spaces_and_letters_in_a_path_are_quoted(server):
    assert local().fetch(f"{server.url}/picture/a b é.jpg") == server.picture
    assert server.requests["/picture/a%20b%20%C3%A9.jpg"] == 1


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"read_timeout": -1}, {"max_bytes": 0}, {"retries": -1}, {"max_redirects": "3"}]
)
def test_options_are_checked_at_construction(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Fetcher(**options)


def test_no_thread_is_left_behind(server):
    before = threading.active_count()
    with pytest.raises(FetchError):
        local(timeout=0.3).fetch(f"{server.url}/slowbody")
    assert threading.active_count() <= before + 1  # the server's own for this connection


def test_of_public_and_private_addresses_only_the_public_ones_are_connected_to(server, monkeypatch):
    """A name may have both; the private ones are passed over, wherever they stand."""
    port = int(server.url.rsplit(":", 1)[1])
    public = ["93.184.215.14", "2606:4700:4700::1111"]
    private = ["127.0.0.1", "10.0.0.1", "::1", "169.254.169.254", "::ffff:127.0.0.1"]

    def found(*addresses):
        family = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(family[":" in each], socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    for order in (public + private, private + public, [private[0], public[0], *private[1:], public[1]]):
        monkeypatch.setattr(connect_module.socket, "getaddrinfo", lambda *_, order=order, **__: found(*order))
        assert [
            where[0] for _, where in connect_module.public_addresses("both.test", port, allow_private=False)
        ] == public
        assert len(connect_module.public_addresses("both.test", port, allow_private=True)) == len(order)
    tried = []

    class Socket(socket.socket):
        def settimeout(self, value): ...

        def connect(self, where):
            tried.append(where[0])
            raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(connect_module, "_Socket", Socket)
    with pytest.raises(FetchError):
        Fetcher(retries=0, timeout=5).get(f"http://both.test:{port}/picture")
    assert tried == public and not server.requests


def test_a_dataset_with_an_empty_cache_of_downloads_uses_it(tmp_path):
    for downloads in (tmp_path / "a", {"directory": tmp_path / "b", "max_images": 3}):
        made = Fetcher.from_config(
            DatasetConfig.of({"path": "photos", "downloads": downloads, "fetch": {"retries": 1}})
        )
        assert made.downloads is not None and len(made.downloads) == 0 and made.retries == 1
    assert Fetcher.from_config(DatasetConfig.of({"path": "photos"})).downloads is None
