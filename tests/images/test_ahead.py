"""`FetchAhead`: images fetched before their readers want them, in bounded memory."""

from __future__ import annotations

import gc
import pickle
import threading
import time

import pytest

from calotype.errors import FetchError
from calotype.images import Fetcher, ImageReader
from calotype.images import ahead as ahead_module
from calotype.images.ahead import FetchAhead
from calotype.types import ImageRef


@pytest.fixture
def server(serve):
    return serve()


def images(*urls: str) -> list[ImageRef]:
    return [ImageRef(name=url, url=url) for url in urls]


def until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


class Slow:
    """Reads an image of 100 bytes as soon as it is let."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.go = threading.Event()

    def __call__(self, ref: ImageRef) -> bytes:
        self.read.append(ref.name)
        assert self.go.wait(20)
        if ref.name.startswith("bad"):
            raise FetchError(ref.name, "gone", why="404")
        return ref.name.encode().ljust(100)


def test_a_reader_takes_what_was_begun_and_each_image_is_fetched_once(server):
    refs = images(*(f"{server.url}/together/20/{index}" for index in range(20)))
    reader = ImageReader(fetcher=Fetcher(allow_private=True, read_timeout=15))
    ahead = reader.ahead([*refs, ImageRef(name="a", path="/a")])
    assert [ahead.read_bytes(ref) for ref in refs] == [server.picture] * 20  # 20 at a time, for one thread that reads
    assert server.requests.total() == 20
    assert ahead.read_bytes(refs[0]) == server.picture  # the second time it is fetched as ever
    assert server.requests.total() == 21
    assert reader.ahead([ImageRef(name="a", path="/a")]) is reader
    assert pickle.loads(pickle.dumps(ahead)).read_bytes(refs[0]) == server.picture


def test_an_error_comes_to_the_one_who_reads(server):
    refs = images(f"{server.url}/missing", f"{server.url}/picture/a")
    reader = ImageReader(fetcher=Fetcher(allow_private=True)).ahead(refs)
    with pytest.raises(FetchError, match="404"):
        reader.read_bytes(refs[0])
    assert reader.read_bytes(refs[1]) == server.picture


def test_what_waits_is_left_to_the_one_who_wants_it(server):
    ahead, slow = FetchAhead(2), Slow()
    begun = ahead.begin(images("a", "b", "c"), slow)
    until(lambda: len(slow.read) == 2)
    assert begun.take("c") is None and begun.take("nothing") is None
    slow.go.set()
    assert begun.take("a") == b"a".ljust(100)
    assert slow.read == ["a", "b"]


def test_memory_is_bounded_and_comes_back(monkeypatch):
    monkeypatch.setattr(ahead_module, "_MOST_BYTES", 500)
    ahead, slow = FetchAhead(2), Slow()
    slow.go.set()
    names = [f"{number}" for number in range(40)]
    begun = ahead.begin(images(*names), slow)
    until(lambda: ahead._held >= 500 and not ahead._running)
    assert 5 <= len(slow.read) <= 6 and ahead._held <= 600
    for name in names[:4]:
        assert begun.take(name) == name.encode().ljust(100)
    until(lambda: len(slow.read) >= 9 and not ahead._running)
    assert ahead._held <= 600


def test_what_nobody_reads_any_more_is_given_up(monkeypatch):
    monkeypatch.setattr(ahead_module, "_MOST_BYTES", 300)
    ahead, slow = FetchAhead(2), Slow()
    first = ahead.begin(images(*"abcdefgh", "bad"), slow)
    until(lambda: len(slow.read) == 2)
    del first  # two are on their way
    gc.collect()
    second = ahead.begin(images("x", "bad y"), slow)
    slow.go.set()
    until(lambda: len(slow.read) == 4)
    assert second.take("x") == b"x".ljust(100)
    with pytest.raises(FetchError):
        second.take("bad y")
    until(lambda: not ahead._running and not ahead._held)
    assert set(slow.read) <= {"a", "b", "x", "bad y"}
