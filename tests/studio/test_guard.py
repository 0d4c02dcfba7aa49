"""Who may ask: only the page with the token, at our own address; and nothing but the dataset is given."""

import json
import socket
import threading
import time

import pytest
import uvicorn
from studio_client import ADDRESS, PORT, TOKEN, reviewing

from calotype.errors import ConfigError
from calotype.studio import server
from calotype.studio.guard import MAX_BODY_BYTES

COOKIE = f"calotype-studio-{PORT}"


@pytest.fixture(scope="module")
def guarded(small_photos, tmp_path_factory):
    with reviewing(small_photos) as client:
        client.headers.pop("authorization")
        yield client


def bearer(token=TOKEN):
    return {"Authorization": f"Bearer {token}"}


def test_the_address_with_a_code_is_the_way_in_once(guarded):
    code = guarded.codes.current
    guarded.cookies.clear()
    answer = guarded.get(f"/?code={code}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{ADDRESS}/")
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith(f"{COOKIE}={TOKEN}".lower())
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert guarded.codes.current != code
    cookies = {"Cookie": f"{COOKIE}={TOKEN}"}
    guarded.cookies.clear()
    assert guarded.get(f"/?code={code}").status_code == 401  # another browser
    again = guarded.get(f"/?code={code}", headers=cookies, follow_redirects=False)
    assert again.status_code == 303 and "set-cookie" not in again.headers  # the same one
    assert guarded.get("/", headers=cookies).status_code == 200
    assert guarded.get("/api/dataset", headers=cookies).status_code == 200
    assert guarded.get(f"/?code={TOKEN}").status_code == 401
    assert guarded.get(f"/?token={TOKEN}").status_code == 401


@pytest.mark.parametrize("path", ["/", "/api/dataset", "/thumb/0", "/image/0", "/static/main.js", "/none"])
def test_nothing_without_the_token(guarded, path):
    for headers in (
        {},
        bearer("wrong"),
        {"Cookie": f"{COOKIE}=wrong"},
        {"Cookie": f'{COOKIE}="'},
        bearer("ä".encode()),
    ):
        guarded.cookies.clear()
        assert guarded.get(path, headers=headers).status_code == 401
    for query in ("code=wrong", "code=", "code=\u00e4", "&".join(["code=x"] * 500)):
        assert guarded.get(f"/?{query}").status_code in (400, 401)


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", ""])
def test_another_host_is_refused(guarded, host):
    answer = guarded.get("/api/dataset", headers={**bearer(), "Host": host})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (403, "host")
    code = guarded.codes.current
    assert guarded.get(f"/?code={code}", headers={"Host": host}).status_code == 403 and guarded.codes.current == code


def test_one_of_two_hosts_or_origins_that_is_ours_does_not_do(guarded):
    ours, token = ("Host", f"127.0.0.1:{PORT}"), ("Authorization", f"Bearer {TOKEN}")
    assert guarded.get("/api/dataset", headers=[ours, token]).status_code == 200
    for other in (("Host", "evil.example"), ("Host", f"localhost:{PORT}"), ("Origin", "https://evil.example")):
        for first, second in ((ours, other), (other, ours)):
            headers = [first, second, token, *([("Origin", ADDRESS)] if other[0] == "Origin" else [])]
            assert guarded.get("/api/dataset", headers=headers).status_code == 403


def test_a_code_is_for_a_visit_alone(guarded):
    code = guarded.codes.current
    guarded.cookies.clear()
    for method, path in (("POST", "/"), ("HEAD", "/"), ("GET", "/api/dataset")):
        assert guarded.request(method, f"{path}?code={code}").status_code == 401
    assert guarded.codes.current == code


def test_localhost_is_ours_too(guarded):
    assert guarded.get("/api/dataset", headers={**bearer(), "Host": f"localhost:{PORT}"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": f"http://127.0.0.1:{PORT + 1}"},
        {"Origin": f"https://127.0.0.1:{PORT}"},
        {"Origin": f"http://localhost:{PORT}"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_another_page_is_refused(guarded, headers):
    answer = guarded.post("/api/undo", json={}, headers=bearer() | headers)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (403, "origin")
    if headers != {"Sec-Fetch-Site": "none"}:  # typed by the person
        assert guarded.get("/thumb/0", headers=bearer() | headers).status_code == 403


def test_our_own_page_is_not(guarded):
    ours = {"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"}
    assert guarded.post("/api/undo", json={}, headers=bearer() | ours).status_code == 200


def test_a_form_of_another_page_is_no_json(guarded):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = guarded.post("/api/undo", content=b"{}", headers=bearer() | {"Content-Type": kind})
        assert (answer.status_code, answer.json()["error"]["kind"]) == (415, "media_type")


def test_bodies_have_a_limit_whatever_their_header_says(guarded):
    headers = bearer() | {"Content-Type": "application/json"}
    most = json.dumps({"texts": [""]}).encode()
    most += b" " * (MAX_BODY_BYTES - len(most))
    assert guarded.post("/api/tokens", content=most, headers=headers).status_code != 413
    assert guarded.post("/api/tokens", content=most + b" ", headers=headers).status_code == 413
    large = json.dumps({"texts": ["x" * MAX_BODY_BYTES]}).encode()
    assert guarded.post("/api/tokens", content=large, headers=headers).status_code == 413
    pieces = (large[start : start + 65536] for start in range(0, len(large), 65536))
    assert guarded.post("/api/tokens", content=pieces, headers=headers).status_code == 413  # no length said


@pytest.mark.parametrize(
    "body", [b"", b"no", b"[]", b"1", b'"x"', b"[" * 100_000, b'{"texts": 3}', b'{"texts": ["\\ud800"]}', b"\xff\xfe"]
)
def test_bodies_that_are_no_requests(guarded, body):
    answer = guarded.post("/api/tokens", content=body, headers=bearer() | {"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (422, "bad_request")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/static/../../../../etc/passwd",
        "/static//etc/passwd",
        "/thumb/../../etc/passwd",
        "/thumb/0/../../etc/passwd",
        "/thumb/%2fetc%2fpasswd",
        "/image/astronaut.png",
        "/thumb/-1",
        "/thumb/99999999999999999999",
        "/image/5",
        "/api/../etc/passwd",
        "//etc/passwd",
    ],
)
def test_nothing_outside_the_dataset_is_given(guarded, path):
    answer = guarded.get(path, headers=bearer())
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_every_answer_has_the_headers(guarded):
    for path, status in (("/", 200), ("/thumb/0", 200), ("/api/dataset", 200), ("/none", 404), ("/api/undo", 405)):
        answer = guarded.get(path, headers=bearer())
        assert answer.status_code == status
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert guarded.get("/", headers={}).headers["x-content-type-options"] == "nosniff"  # refusals too


def test_a_real_server_listens_on_loopback_only(small_photos, monkeypatch):
    running = []
    monkeypatch.setattr(uvicorn.Server, "install_signal_handlers", lambda self: None, raising=False)
    original = uvicorn.Server.run

    def run(self, sockets):
        running.append(self)
        original(self, sockets)

    monkeypatch.setattr(uvicorn.Server, "run", run)
    with reviewing(small_photos) as client:
        studio = client.studio
    studio = type(studio)(studio.source.config)
    addresses = []
    thread = threading.Thread(target=server.serve, args=(studio,), kwargs={"ready": addresses.append})
    thread.start()
    while not running or not running[0].started:
        time.sleep(0.01)
    host, port = addresses[0].removeprefix("http://").partition("/")[0].split(":")
    try:
        assert host == "127.0.0.1"
        with socket.create_connection((host, int(port))) as link:
            link.sendall(b"GET /api/dataset HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n")
            assert link.makefile("rb").readline().startswith(b"HTTP/1.1 403")
        with pytest.raises(ConfigError, match="--port"):
            server.serve(studio, port=int(port), ready=addresses.append)
        with socket.socket() as other:  # another address of this machine
            other.settimeout(2)
            assert other.connect_ex(("127.0.0.2", int(port))) != 0
    finally:
        running[0].should_exit = True
        thread.join()
