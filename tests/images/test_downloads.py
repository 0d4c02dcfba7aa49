"""`Downloads`: bounded, least recently used out first, whole after a kill, shared by threads and processes."""

from __future__ import annotations

import hashlib
import inspect
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from calotype.errors import ConfigError, FetchError
from calotype.images import Downloads, Fetcher, ImageReader
from calotype.types import ImageRef


def body(url: str) -> bytes:
    """What a URL's file is in these tests: 1 to 20 kB that its name decides."""
    seed = hashlib.sha256(url.encode()).digest()
    return random.Random(seed).randbytes(1000 + seed[0] * 75)


class Source:
    """Fetches made-up files and counts them."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    def __call__(self, url: str) -> bytes:
        self.fetched.append(url)
        return body(url)


def files(directory: Path) -> list[Path]:
    """The kept files; nothing else may lie there but the index and an empty `tmp`."""
    kept = [path for path in directory.glob("[0-9a-f][0-9a-f]/*") if path.is_file()]
    everything = {path for path in directory.rglob("*") if path.is_file()}
    assert {path.name.partition("-")[0] for path in everything - set(kept)} <= {"index.sqlite3"}
    return kept


def check(downloads: Downloads) -> None:
    """The index counts exactly what is on disk."""
    kept = files(downloads.directory)
    assert len(downloads) == len(kept)
    assert downloads.total_bytes == sum(path.stat().st_size for path in kept)


def test_the_second_epoch_comes_from_disk(serve, tmp_path):
    server = serve()
    urls = [f"{server.url}/picture/{index}" for index in range(5)]
    for _ in range(2):  # two runs of the program
        reader = ImageReader(fetcher=Fetcher(downloads=Downloads(tmp_path / "kept"), allow_private=True))
        for url in urls:
            ref = ImageRef(name=url, url=url)
            assert reader.read_bytes(ref) == server.picture
            assert reader.size(ref) == (149, 203)
    assert sum(server.requests.values()) == 5
    assert {path.read_bytes() for path in files(tmp_path / "kept")} == {server.picture}  # the original bytes


def test_an_error_is_not_kept(serve, tmp_path):
    server = serve()
    downloads = Downloads(tmp_path / "kept")
    fetcher = Fetcher(downloads=downloads, allow_private=True, retries=0)
    for path in ("missing", "html", "cut/99"):
        for _ in range(2):
            with pytest.raises(FetchError):
                fetcher.get(f"{server.url}/{path}")
        assert server.requests[f"/{path}"] == 2
    check(downloads)
    assert len(downloads) == 0


def test_the_least_recently_used_goes_first(tmp_path):
    source, downloads = Source(), Downloads(tmp_path, max_images=3)
    for url in "abc":
        downloads.get(url, source)
    downloads.get("a", source)  # used again: b is now the oldest
    downloads.get("d", source)
    assert [url in downloads for url in "abcd"] == [True, False, True, True]
    downloads.get("c", source)
    downloads.get("e", source)
    downloads.get("f", source)
    assert [url in downloads for url in "abcdef"] == [False, False, True, False, True, True]
    assert source.fetched == list("abcdef")
    check(downloads)


def test_bytes_are_bounded(tmp_path):
    source, downloads = Source(), Downloads(tmp_path, max_bytes=30_000)
    for index in range(60):
        url = f"u{index % 37}"
        assert downloads.get(url, source) == body(url)
        assert downloads.total_bytes <= 30_000
    check(downloads)
    assert len(downloads) >= 1


def test_a_image_longer_than_the_bound_is_handed_on_and_evicts_nothing(tmp_path):
    downloads = Downloads(tmp_path, max_bytes=5000)
    downloads.get("small", lambda _: bytes(1000))
    assert downloads.get("large", lambda _: bytes(5001)) == bytes(5001)
    assert "small" in downloads
    assert "large" not in downloads
    check(downloads)


def test_both_bounds_hold_together_and_a_smaller_one_later_makes_room(tmp_path):
    source, downloads = Source(), Downloads(tmp_path)
    for index in range(30):
        downloads.get(f"u{index}", source)
    assert len(downloads) == 30
    tighter = Downloads(tmp_path, max_images=10, max_bytes=50_000)
    tighter.get("one more", source)
    assert len(tighter) <= 10
    assert tighter.total_bytes <= 50_000
    check(tighter)


def test_a_moved_folder_is_as_good(tmp_path):
    source = Source()
    Downloads(tmp_path / "here").get("a", source)
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert Downloads(tmp_path / "there").get("a", source) == body("a")
    assert source.fetched == ["a"]
    inside = b"".join(path.read_bytes() for path in (tmp_path / "there").rglob("*") if path.is_file())
    assert str(tmp_path).encode() not in inside


def test_a_damaged_file_is_fetched_again(tmp_path):
    source, downloads = Source(), Downloads(tmp_path)
    for damage in (lambda data: data[:-1], lambda data: b"\0" * len(data), lambda data: data[:9] + b"?" + data[10:]):
        downloads.get("a", source)
        (path,) = files(tmp_path)
        path.write_bytes(damage(path.read_bytes()))
        before = len(source.fetched)
        assert downloads.get("a", source) == body("a")
        assert len(source.fetched) == before + 1
        check(downloads)


def test_a_file_that_someone_deleted_is_fetched_again(tmp_path):
    source, downloads = Source(), Downloads(tmp_path, max_images=2)
    downloads.get("a", source)
    files(tmp_path)[0].unlink()
    assert downloads.get("a", source) == body("a")
    assert source.fetched == ["a", "a"]
    check(downloads)


def test_threads_that_want_one_url_fetch_it_once(tmp_path):
    downloads = Downloads(tmp_path)
    started, release = threading.Event(), threading.Event()
    fetched = []

    def slow(url: str) -> bytes:
        fetched.append(url)
        started.set()
        release.wait(30)
        return body(url)

    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(downloads.get, "a", slow) for _ in range(8)]
        started.wait(30)
        time.sleep(0.1)  # the others arrive meanwhile
        release.set()
        assert all(result.result() == body("a") for result in results)
    assert fetched == ["a"]


def test_threads_that_want_one_bad_url_all_hear_of_it(tmp_path):
    downloads = Downloads(tmp_path)
    start = threading.Barrier(4)

    def bad(url: str) -> bytes:
        time.sleep(0.2)
        raise FetchError(url, "the server answered 404")

    def ask(_: int) -> str:
        start.wait()
        with pytest.raises(FetchError) as caught:
            downloads.get("a", bad)
        return str(caught.value)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(4))) == {"a: the server answered 404"}
    assert downloads.get("a", body) == body("a")  # and it may be asked for again


def test_a_disk_that_can_not_be_written_costs_the_copy_and_not_the_image(tmp_path, caplog):
    downloads = Downloads(tmp_path / "kept")
    shutil.rmtree(tmp_path / "kept" / "tmp")
    assert downloads.get("a", body) == body("a")
    assert downloads.get("c", body) == body("c")
    shutil.rmtree(tmp_path / "kept")
    assert downloads.get("b", body) == body("b")
    (record,) = caplog.records  # once, however many images there are
    assert record.getMessage() == f"downloads are not cached in {tmp_path / 'kept'}: No such file or directory"


def test_what_can_not_be_a_folder_of_downloads(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for name, reason in (("file", "Not a directory"), ("x" * 300, "File name too long")):
        with pytest.raises(ConfigError) as raised:
            Downloads(tmp_path / name)
        assert str(raised.value) == f"downloads: {tmp_path / name} can't be used: {reason}"
    Downloads(tmp_path / "kept")
    for path in (tmp_path / "kept").glob("index*"):
        path.write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigError, match="damaged, delete the folder"):
        Downloads(tmp_path / "kept")
    for options in ({"max_images": 0}, {"max_bytes": -1}, {"max_images": 1.5}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            Downloads(tmp_path / "kept2", **options)


def test_stale_temporary_files_are_cleared_and_fresh_ones_are_not(tmp_path):
    Downloads(tmp_path)
    stale, fresh = tmp_path / "tmp" / "1-dead", tmp_path / "tmp" / "2-alive"
    stale.write_bytes(b"half")
    fresh.write_bytes(b"half")
    long_ago = time.time() - 2 * 3600
    os.utime(stale, (long_ago, long_ago))
    Downloads(tmp_path)
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["2-alive"]


def test_it_travels_by_pickle(tmp_path):
    source, downloads = Source(), Downloads(tmp_path, max_images=3, max_bytes=10**6)
    downloads.get("a", source)
    copy = pickle.loads(pickle.dumps(downloads))
    assert (copy.max_images, copy.max_bytes) == (3, 10**6)
    assert copy.get("a", source) == body("a")
    assert source.fetched == ["a"]


# ---------------------------------------------------------------------------------------------------- many processes


def _stress(directory: str, seed: int, rounds: int, max_images: int, max_bytes: int) -> None:
    downloads = Downloads(directory, max_images=max_images, max_bytes=max_bytes)

    def work(thread: int) -> None:
        rng = random.Random(f"{seed} {thread}")
        for _ in range(rounds):
            url = f"u{min(int(rng.expovariate(0.1)), 99)}"
            assert downloads.get(url, body) == body(url)
            if rng.random() < 0.05:
                assert len(downloads) <= max_images
                assert downloads.total_bytes <= max_bytes

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_four_processes_of_three_threads_at_once(tmp_path, method):
    context = multiprocessing.get_context(method)
    downloads = Downloads(tmp_path, max_images=20, max_bytes=150_000)
    running = [context.Process(target=_stress, args=(str(tmp_path), n, 120, 20, 150_000)) for n in range(4)]
    for process in running:
        process.start()
    for process in running:
        process.join(100)
        assert process.exitcode == 0
    check(downloads)
    assert 0 < len(downloads) <= 20
    assert downloads.total_bytes <= 150_000
    assert list((tmp_path / "tmp").iterdir()) == []


KILLED = f"""
import hashlib, random, sys
from calotype.images.downloads import Downloads
{inspect.getsource(body)}
downloads = Downloads(sys.argv[1], max_images=15)
print("ready", flush=True)
index = 0
while True:
    downloads.get("u%d" % (index * 7919 % 1000), body)
    index += 1
"""


def test_killed_writers_leave_no_half_file_and_no_wrong_count(tmp_path):
    rng = random.Random(8)
    for _ in range(4):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        writers = [subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) for _ in range(2)]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        time.sleep(rng.uniform(0.02, 0.2))
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
        for path in (tmp_path / "tmp").iterdir():
            path.unlink()  # what the sweep does after an hour
        downloads = Downloads(tmp_path, max_images=15)
        kept = {hashlib.sha256(f"u{n}".encode()).hexdigest(): body(f"u{n}") for n in range(1000)}
        found = files(tmp_path)
        assert all(path.read_bytes() == kept[path.parent.name + path.name] for path in found)
        assert len(found) <= len(downloads) <= 15  # a record may lack its file, never the reverse
        for n in range(1000, 1016):  # and such records go when their turn comes
            downloads.get(f"u{n}", body)
        check(downloads)
        assert len(downloads) == 15


def test_a_folder_in_a_file_s_place_costs_the_copy(tmp_path):
    source, downloads = Source(), Downloads(tmp_path, max_images=2)
    downloads.get("a", source)
    (kept,) = files(tmp_path)
    kept.unlink()
    (kept / "inside").mkdir(parents=True)
    assert [downloads.get("a", source) for _ in range(2)] == [body("a")] * 2
