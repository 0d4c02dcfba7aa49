"""Shared by all tests: real photos with captions, and a cache folder that leaves the user's alone."""

import http.server
import json
import os
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
import skimage
from PIL import Image

# A background job of a shell, as these tests may be, ignores Ctrl-C, and so would every command that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

NAMES = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg", "motorcycle_left.png"]


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    os.environ["CALOTYPE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def skimage_data():
    return Path(skimage.__file__).parent / "data"


@pytest.fixture(scope="session")
def photos(tmp_path_factory, skimage_data):
    """A folder of 12 real photos, 240 to 480 px, in three shapes, with two captions each."""
    folder = tmp_path_factory.mktemp("photos")
    lines = []
    for number in range(12):
        image = Image.open(skimage_data / NAMES[number % len(NAMES)]).convert("RGB")
        width, height = [(320, 320), (480, 320), (240, 360)][number % 3]
        top = 20 * (number // 6)
        image = image.crop((0, top, min(width, image.width), min(top + height, image.height)))
        image.resize((width, height)).save(folder / f"{number:02d}.jpg", quality=92)
        captions = [f"photo {number}, red, green, blue", f"image {number}, one, two, three"]
        lines.append(json.dumps({"file_name": f"{number:02d}.jpg", "text": captions}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def captioner(tmp_path_factory):
    """The folder of a tiny Qwen2-VL that knows six photos, trained once for all tests of a process."""
    import tiny_captioners  # loads transformers

    return tiny_captioners.qwen2_vl(tmp_path_factory.mktemp("models") / "tiny-qwen2-vl")


@pytest.fixture
def gathering(photos):
    """A server of the photos that sends none before ten requests wait: its address, requests by path, waiting ones."""
    asked, changed, waiting = Counter(), threading.Condition(), Counter()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            with changed:
                asked[self.path] += 1
                waiting["now"] += 1
                waiting["most"] = max(waiting["most"], waiting["now"])
                changed.notify_all()
                changed.wait_for(lambda: waiting["most"] >= 10, timeout=20)
                waiting["now"] -= 1
            photo = (photos / self.path[1:]).read_bytes()
            self.send_response(200)
            self.send_header("content-length", str(len(photo)))
            self.end_headers()
            self.wfile.write(photo)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked, waiting
    server.shutdown()
    server.server_close()
