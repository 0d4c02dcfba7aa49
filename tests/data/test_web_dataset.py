"""Images at URLs, end to end: fetched once, kept for the next epoch, one dead link costs nothing else."""

import http.server
import io
import json
import threading
from collections import Counter

import pytest
import torch
from PIL import Image

import calotype
from calotype.errors import FetchError


@pytest.fixture
def web(photos):
    """The photos on a loopback server that counts what it is asked for; one of them is gone."""
    asked = Counter()

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(photos))

        def do_GET(self):
            asked[self.path] += 1
            if self.path == "/07.jpg":
                self.send_error(404)
            else:
                super().do_GET()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def load(base, tmp_path, **options):
    rows = tmp_path / "rows.jsonl"
    lines = [json.dumps({"url": f"{base}/{n:02d}.jpg", "caption": f"number {n}"}) for n in range(12)]
    rows.write_text("\n".join(lines) + "\n")
    defaults = {"img_transform": {"resize": 64, "center_crop": True}, "fetch": {"allow_private": True}}
    return calotype.text_to_image_dataset(path=rows, include=("id",), **defaults | options)


def test_each_url_is_fetched_once_for_all_epochs_and_runs(web, tmp_path):
    base, asked = web
    for _ in range(2):  # two runs, each a loader process of its own
        dataset = load(base, tmp_path, downloads={"directory": str(tmp_path / "kept"), "max_images": 100})
        with calotype.Loader(dataset, 4) as loader:
            for _ in range(2):
                seen = Counter(id for batch in loader for id in batch["id"])
                assert set(seen) == {f"{base}/{n:02d}.jpg" for n in range(12) if n != 7}
        assert {entry.id for entry in loader.ledger if entry.kind == "unreadable"} == {f"{base}/07.jpg"}
    assert {path: count for path, count in asked.items() if path != "/07.jpg"} == {
        f"/{n:02d}.jpg": 1 for n in range(12) if n != 7
    }


def test_without_a_copy_each_epoch_fetches_anew(web, tmp_path):
    base, asked = web
    with calotype.Loader(load(base, tmp_path), 4, in_process=True, prefetch=1) as loader:
        list(loader), list(loader)
    assert asked["/00.jpg"] >= 2


def test_buckets_need_sizes_and_so_fetch_first(web, tmp_path):
    base, asked = web
    dataset = load(base, tmp_path, img_transform=None, resolution=128, downloads=str(tmp_path / "kept"))
    loader = calotype.Loader(dataset, 4, in_process=True)
    assert {entry.id for entry in loader.ledger if entry.kind == "unreadable"} == {f"{base}/07.jpg"}
    assert sum(len(batch["id"]) for batch in loader) == 11
    assert asked["/00.jpg"] == 1


def test_private_addresses_are_refused_unless_allowed(web, tmp_path):
    base, asked = web
    with pytest.raises(FetchError, match="private"):
        load(base, tmp_path, fetch=None)[0]
    assert not asked


@pytest.mark.parametrize("in_process", [True, False])
def test_a_loader_of_one_thread_fetches_many_images_ahead(gathering, tmp_path, in_process):
    base, asked, waiting = gathering
    dataset = load(base, tmp_path)
    with calotype.Loader(dataset, 1, threads=1, prefetch=1, in_process=in_process) as loader:
        assert sum(len(batch["id"]) for batch in loader) == 12
    assert waiting["most"] >= 10
    assert {asked[f"/{n:02d}.jpg"] for n in range(12)} <= {1, 2}  # what the next epoch begins with was begun, too


def test_an_image_in_the_pixel_cache_is_not_fetched(gathering, tmp_path):
    base, asked, _ = gathering
    dataset = load(base, tmp_path, pixel_cache=100)
    with calotype.Loader(dataset, 4, in_process=True) as loader:
        list(loader)
        before = asked.total()
        list(loader), list(loader)
    assert asked.total() - before <= 12  # the second epoch was begun before the first had come


def test_torchs_dataloader_fetches_a_batch_at_once(gathering, tmp_path):
    base, asked, waiting = gathering
    loader = torch.utils.data.DataLoader(load(base, tmp_path), batch_size=12, collate_fn=calotype.collate)
    assert [len(batch["id"]) for batch in loader] == [12]
    assert waiting["most"] >= 10 and asked.total() == 12


@pytest.fixture
def changing(tmp_path):
    """Six URLs of images whose (width, height) a test may change, and a data file with them."""
    sizes = dict.fromkeys([f"/{n}.png" for n in range(6)], (200, 100))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            out = io.BytesIO()
            Image.new("RGB", sizes[self.path]).save(out, "PNG")
            self.send_response(200)
            self.send_header("Content-Length", str(out.tell()))
            self.end_headers()
            self.wfile.write(out.getvalue())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rows = tmp_path / "changing.jsonl"
    base = f"http://127.0.0.1:{server.server_address[1]}"
    rows.write_text("".join(json.dumps({"url": base + path, "caption": "c"}) + "\n" for path in sizes))
    yield rows, base, sizes
    server.shutdown()
    server.server_close()


def test_an_image_that_no_longer_fits_its_plan_is_named_and_its_size_fetched_again(changing):
    rows, base, sizes = changing

    def epochs(number=1):
        dataset = calotype.text_to_image_dataset(
            path=rows, resolution=64, include=("id",), fetch={"allow_private": True}, buckets={"max_upscale": 1.0}
        )
        with calotype.Loader(dataset, 2, in_process=True) as loader:
            seen = [Counter(id for batch in loader for id in batch["id"]) for _ in range(number)]
        unread = Counter((entry.id, entry.reason) for entry in loader.ledger if entry.kind == "unreadable")
        return seen, unread, {entry.kind for entry in loader.ledger}

    epochs()
    # Of another shape; too small; another size that is as good.
    sizes |= {"/1.png": (100, 200), "/2.png": (40, 20), "/3.png": (220, 110)}
    seen, unread, kinds = epochs(2)
    assert all(
        {f"{base}/0.png", f"{base}/3.png"} <= set(ids) <= {f"{base}/{n}.png" for n in (0, 3, 4, 5)} for ids in seen
    )
    reasons = {id[-5]: reason for id, reason in unread}
    assert sorted(reasons) == ["1", "2"] and min(unread.values()) >= 2 and "upscaled" not in kinds
    assert "its URL had 200×100 px when its size was fetched, and has 100×200 now" in reasons["1"]
    # The next run plans with what is there.
    (seen,), unread, kinds = epochs()
    assert len(seen) == 6 and not unread and "upscaled" in kinds
