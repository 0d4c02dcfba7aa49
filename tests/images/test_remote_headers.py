"""Headers of images on a server: by range requests, and the same as of the file."""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calotype.core import retry
from calotype.errors import FetchError, ImageError
from calotype.images import Downloads, Fetcher, ImageReader, scan_contents, scan_sizes
from calotype.images import hosts as hosts_module
from calotype.images import scan as scan_module
from calotype.types import ImageRef

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(serve, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)
    return serve()


def noise(*size: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8))


def encoded(format: str, **options) -> bytes:
    file = io.BytesIO()
    noise(200, 300).save(file, format, **options)
    return file.getvalue()


def image_of(url: str) -> ImageRef:
    return ImageRef(name=url, url=url)


def local(**options) -> ImageReader:
    return ImageReader(fetcher=Fetcher(**({"allow_private": True, "timeout": 10, "read_timeout": 5} | options)))


def exif(bytes_of_it: int) -> bytes:
    """EXIF with orientation 6 and a thumbnail of noise."""
    made = Image.Exif()
    made[0x0112] = 6
    made[0x927C] = os.urandom(bytes_of_it)
    return made.tobytes()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP"])
@pytest.mark.parametrize("path", ["ranged", "whole"])
def test_the_header_is_the_file_s_whether_the_server_knows_ranges_or_not(server, tmp_path, format, path):
    data = encoded(format)
    (tmp_path / "a").write_bytes(data)
    server.state["images"], server.picture = {"a": data}, data
    url = f"{server.url}/{'ranged' if path == 'ranged' else 'picture'}/a"
    reader = local()
    expected = reader.header(ImageRef(name="a", path=str(tmp_path / "a")))
    assert reader.header(image_of(url)) == expected
    assert expected.bytes == len(data) and len(data) > 17_000


def test_of_a_long_jpeg_only_the_beginning_is_fetched_and_its_connection_kept(server):
    data = encoded("JPEG", quality=100)
    server.state["images"] = {"a": data}
    reader = local()
    for _ in range(5):
        assert reader.size(image_of(f"{server.url}/ranged/a")) == (200, 300)
    assert {sent for _, sent in server.state["sent"]} == {16384} and len(data) > 3 * 16384
    assert server.connections == 1


def test_a_long_header_takes_a_second_request(server):
    server.state["images"] = {"a": encoded("JPEG", quality=100, exif=exif(40_000))}
    assert local().size(image_of(f"{server.url}/ranged/a")) == (300, 200)
    assert [sent for _, sent in server.state["sent"]] == [16384, 7 * 16384]


def test_of_a_long_body_without_ranges_no_more_is_read(server):
    server.picture += bytes(20_000)
    header = local(max_bytes=10**13).header(image_of(f"{server.url}/huge"))  # announces a terabyte, and sends this
    assert (header.size, header.bytes) == ((149, 203), 10**12)
    with pytest.raises(FetchError, match=r"announces 1,000,000,000,000 bytes, more than max_bytes"):
        local().header(image_of(f"{server.url}/huge"))


def test_of_a_compressed_body_the_announced_length_is_not_the_images(server):
    data = encoded("JPEG") + np.random.default_rng(1).bytes(600_000) + bytes(400_000)
    sent = gzip.compress(data)
    server.state["odd"] = lambda send, headers: send(200, sent, content_encoding="gzip")
    header = local().header(image_of(f"{server.url}/odd"))
    assert 16 * 16 * 1024 < len(sent) < len(data) == header.bytes


@pytest.mark.parametrize("odd", ["elsewhere", "no length", "compressed", "416"])
def test_an_odd_answer_to_a_range_is_asked_for_the_whole(server, monkeypatch, odd):
    data = encoded("JPEG")
    handler = {
        "elsewhere": lambda send: send(206, data[100:], content_range=f"bytes 100-{len(data) - 1}/{len(data)}"),
        "no length": lambda send: send(206, data[:16384], content_range="bytes 0-16383/*"),
        "compressed": lambda send: send(206, b"?", content_range="bytes 0-0/9", content_encoding="gzip"),
        "416": lambda send: send(416),
    }[odd]
    server.state["odd"] = lambda send, headers: handler(send) if "range" in headers else send(200, data)
    assert local().size(image_of(f"{server.url}/odd")) == (200, 300)
    assert server.requests["/odd"] == 2


def test_an_image_that_changes_between_two_requests_is_an_error(server):
    data = encoded("JPEG", quality=100, exif=exif(40_000))

    def changing(send, headers):
        first = int(headers["range"][6:].split("-")[0])
        total = len(data) + first
        send(206, data[first : first + 16384], content_range=f"bytes {first}-{first + 16383}/{total}")

    server.state["odd"] = changing
    with pytest.raises(ImageError, match="changed while it was read"):
        local().size(image_of(f"{server.url}/odd"))


def test_what_is_no_image_is_said(server):
    with pytest.raises(FetchError, match="with Content-Type text/html") as raised:
        local().size(image_of(f"{server.url}/html"))
    assert raised.value.why == "no image"


def test_a_download_is_not_fetched_again_for_its_header(server, tmp_path):
    reader = local(downloads=Downloads(tmp_path / "downloads"))
    url = f"{server.url}/picture/a"
    reader.read_bytes(image_of(url))
    assert reader.size(image_of(url)) == (149, 203)
    assert server.requests["/picture/a"] == 1


# ---------------------------------------------------------------------------------------------------------- many images


def test_sizes_of_urls_are_learned_once_and_failures_tried_again(server):
    refs = [image_of(f"{server.url}/picture/{index}") for index in range(50)]
    refs.insert(7, image_of(f"{server.url}/flaky/404/1"))
    sizes, errors = scan_sizes(refs, local())
    assert [index for index, _ in errors] == [7] and errors[0][1].why == "404"
    assert (sizes[8:] == (149, 203)).all() and sizes[7].tolist() == [0, 0]
    sizes, errors = scan_sizes(refs, local())
    assert not errors and (sizes == (149, 203)).all()
    assert server.requests.total() == 52


def test_a_file_url_is_as_fresh_as_the_file(tmp_path):
    path = tmp_path / "a b.png"
    for size in ((20, 30), (40, 50)):
        noise(*size).save(path)
        ref = image_of(f"file://{str(path).replace(' ', '%20')}")
        assert scan_sizes([ref], local())[0].tolist() == [list(size)]
        assert scan_contents([ref], local())[0].size == size


@pytest.mark.parametrize("scan", [scan_sizes, scan_contents])
def test_urls_are_fetched_over_32_connections(server, scan):
    scan([image_of(f"{server.url}/together/32/{index}") for index in range(40)], local(read_timeout=15, timeout=30))
    assert server.most_active == 32


def test_a_host_has_no_more_requests_than_it_may(server):
    fetcher = Fetcher(allow_private=True, connections_per_host=3)
    reader = ImageReader(fetcher=fetcher)
    scan_sizes([image_of(f"{server.url}/together/3/{index}") for index in range(30)], reader)
    assert server.most_active == 3


def test_all_wait_where_a_host_asks_for_it(server, monkeypatch):
    waits = []
    monkeypatch.setattr(hosts_module.time, "sleep", waits.append)
    server.state["retry_after"] = "9"
    fetcher = Fetcher(allow_private=True)
    fetcher.fetch(f"{server.url}/flaky/429/1")
    assert waits == [9]
    fetcher.fetch(f"{server.url}/picture/a")
    assert 8 < waits[1] <= 9 and len(waits) == 2


def test_columns_with_sizes_are_recommended_once(server, monkeypatch, caplog):
    monkeypatch.setattr(scan_module, "_MANY_URLS", 20)
    refs = [image_of(f"{server.url}/picture/{index}") for index in range(50)]
    scan_sizes(refs, local())
    scan_sizes(refs, local())
    (record,) = caplog.records
    assert "columns width and height in the data file" in record.getMessage()


def test_a_slow_image_delays_no_other(server):
    seen = []
    urls = [f"{server.url}/silent", *(f"{server.url}/picture/{index}" for index in range(200))]
    reader = local(read_timeout=1, retries=0)

    def progress(done, total):
        seen.append(server.requests.total())

    _, errors = scan_sizes([image_of(url) for url in urls], reader, progress=progress)
    assert [index for index, _ in errors] == [0] and errors[0][1].why == "timeout"
    assert seen[-2] == len(urls)  # all others were asked for before the silent one was given up


def test_ctrl_c_ends_at_once_and_keeps_what_is_known(server, tmp_path):
    code = (
        "import sys\nfrom calotype.types import ImageRef\n"
        "from calotype.images import Fetcher, ImageReader, scan_sizes\n"
        "refs = [ImageRef(name=u, url=u) for u in sys.argv[1:]]\n"
        "show = lambda done, total: print(done, flush=True)\n"
        "scan_sizes(refs, ImageReader(fetcher=Fetcher(allow_private=True)), progress=show)\n"
    )
    urls = [f"{server.url}/picture/{index}" for index in range(20)] + [f"{server.url}/silent/{n}" for n in range(5)]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *urls], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while process.stdout.readline() != "20\n":
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)  # the server is silent for 20 s
    assert process.returncode == -signal.SIGINT and "KeyboardInterrupt" in errors
    before = server.requests.total()
    assert (scan_sizes([image_of(url) for url in urls[:20]], local())[0] == (149, 203)).all()
    assert server.requests.total() == before
