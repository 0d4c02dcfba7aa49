"""Images behind URLs: fetched into the result, or left there."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from convert_helpers import load

from calotype.convert import plan_conversion, run_conversion, verify_conversion
from calotype.errors import ConvertError
from calotype.images import Fetcher, ImageReader


@pytest.fixture
def server(skimage_data):
    """Serves one photo under any path but those with `gone` in them."""
    photo = (skimage_data / "rocket.jpg").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404 if "gone" in self.path else 200)
            self.send_header("Content-Length", str(len(photo)))
            self.end_headers()
            self.wfile.write(photo)

        def log_message(self, *args):
            pass

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}", photo
    serving.shutdown()
    serving.server_close()
    thread.join()


@pytest.fixture
def reader():
    return ImageReader(fetcher=Fetcher(allow_private=True, retries=0))


@pytest.fixture
def rows(server, tmp_path):
    """A data file with these URLs."""

    def rows(*paths):
        lines = [json.dumps({"url": f"{server[0]}/{path}", "text": path}) for path in paths]
        (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
        return load(tmp_path / "rows.jsonl")

    return rows


@pytest.mark.parametrize("to", ["imagefolder", "webdataset", "parquet"])
def test_fetched(rows, server, reader, tmp_path, to):
    manifest = rows("a/b.jpg?size=1", "caf%C3%A9.jpg", "view?id=3", "", "x/view")
    plan = plan_conversion(manifest, tmp_path / "out", to=to)
    assert plan.unknown_sizes == 5 and plan.nbytes == 0
    report = run_conversion(plan, reader=reader)
    assert report.bytes == 5 * len(server[1])
    result = load(tmp_path / "out", to)
    assert [row.id for row in result] == [row.id for row in manifest]
    assert [reader.read_bytes(row.image) for row in result] == [server[1]] * 5
    assert verify_conversion(plan, reader=reader).differences == ()
    if to == "imagefolder":
        names = sorted(entry.name for entry in (tmp_path / "out").iterdir())
        assert names == ["b.jpg", "café.jpg", "metadata.jsonl", "picture.jpg", "view-2.jpg", "view.jpg"]


def test_left_where_they_are(rows, tmp_path):
    manifest = rows("a.jpg", "gone.jpg")
    plan = plan_conversion(manifest, tmp_path / "out.csv", to="csv")
    assert plan.target.images == "refer"
    run_conversion(plan)  # asks nobody
    assert load(tmp_path / "out.csv").refs() == manifest.refs()


def test_gone(rows, reader, tmp_path):
    plan = plan_conversion(rows("a.jpg", "gone.jpg", "b.jpg"), tmp_path / "out", to="imagefolder")
    with pytest.raises(ConvertError, match=r"gone\.jpg: the server answered 404"):
        run_conversion(plan, reader=reader)
    report = run_conversion(plan, reader=reader, on_error="skip")
    assert report.rows == 2 and [name.rpartition("/")[2] for name in report.failed] == ["gone.jpg"]
    assert [row.captions[0] for row in load(tmp_path / "out")] == ["a.jpg", "b.jpg"]


def test_as_many_are_fetched_at_a_time_as_there_are_connections(rows, server, tmp_path):
    gathered = threading.Barrier(9, timeout=20)

    class Together(ImageReader):
        def read_bytes(self, ref):
            gathered.wait()
            return super().read_bytes(ref)

    reader = Together(fetcher=Fetcher(allow_private=True, connections=9))
    plan = plan_conversion(rows(*(f"{number}.jpg" for number in range(18))), tmp_path / "out", to="parquet")
    assert run_conversion(plan, reader=reader).rows == 18
