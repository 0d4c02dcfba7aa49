"""How soon does `calotype studio` show 100,000 images, and how fast are its responses, edits and thumbnails?

python benchmarks/studio.py [--images N] [--form txt|metadata] [--thumbnails] [--photos DIR]

The images are tiny JPEGs and PNGs, made here, with a caption each, in `.txt` files or in `metadata.jsonl`. The server
is the real one, in a separate process, queried over HTTP. Each figure is the median of the rounds, in seconds, and in
brackets the slowest; the first edit of a round comes right after the start, the others one after the other.

With `--thumbnails`, those of 64 large photos (3000×2000, those of raw.py) are compared with Pillow's: one thread, with
its scaled decode (`draft`).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import urllib3
from _photos import PhotoSet, photo_sets
from PIL import Image

COMMAND = Path(sys.executable).parent / "calotype"
HERE = Path(__file__).parent
ROUNDS = 3
THUMBNAIL = 320


class Server:
    """A studio that runs, from its start."""

    def __init__(self, folder: Path, cache: Path) -> None:
        environment = os.environ | {"CALOTYPE_CACHE": str(cache)}
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [COMMAND, "studio", folder, "--no-open"], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdout is not None
        found = None
        while found is None:
            line = self._process.stdout.readline()
            assert line, "the server ended"
            found = re.search(r"http://[^/]+/\?code=\S+", line)
        self._pool = urllib3.PoolManager(maxsize=8)
        self._root = found[0].partition("/?")[0]
        cookie = self._pool.request("GET", found[0], redirect=False).headers["Set-Cookie"].partition(";")[0]
        self._pool.headers = {"Cookie": cookie}
        self.get("/")
        self.rows = json.loads(self.get("/api/rows"))["numbers"]
        self.details(range(60))
        self.seconds, self.cpu = time.perf_counter() - start, self._cpu()

    def get(self, path: str) -> bytes:
        answer = self._pool.request("GET", self._root + path)
        assert answer.status == 200, answer.data
        return answer.data

    def post(self, path: str, body: Any) -> Any:
        answer = self._pool.request("POST", self._root + path, json=body)
        assert answer.status == 200, answer.data
        return answer.json()

    def details(self, numbers: range) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            self.get(f"/api/rows/details?numbers={numbers.start}-{numbers.stop - 1}")
        )["rows"]
        return found

    def _cpu(self) -> float:
        """CPU seconds of the server until now, which other programs on the machine hardly change; NaN elsewhere."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return float("nan")
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait(self) -> None:
        """Wait until the background scans are done."""
        scans: dict[str, Any] = {}
        while not scans or any(
            scan["state"] in ("idle", "running") for name, scan in scans.items() if name != "duplicates"
        ):
            time.sleep(0.2)
            scans = json.loads(self.get("/api/changes?since=0"))["scans"]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def make(folder: Path, images: int, form: str) -> None:
    """A folder of tiny images with captions."""
    folder.mkdir()
    kinds = []
    for number in range(16):
        buffer = io.BytesIO()
        image = Image.effect_noise((96 + 8 * number, 64), 40).convert("RGB")
        image.save(buffer, "PNG" if number % 2 else "JPEG")
        kinds.append((".png" if number % 2 else ".jpg", buffer.getvalue()))
    lines = []
    for number in range(images):
        suffix, data = kinds[number % len(kinds)]
        file = folder / f"{number:06d}{suffix}"
        file.write_bytes(data)
        text = f"a photo of a red house, number {number}, with a tree, at noon"
        if form == "txt":
            file.with_suffix(".txt").write_text(text + "\n")
        lines.append(json.dumps({"file_name": file.name, "text": text}))
    if form == "metadata":
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def clock(do: Any) -> float:
    """Seconds."""
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def thumbnails(server: Server, count: int) -> float:
    """Images a second, six asked for at a time, as browsers do."""
    addresses = [row["thumb"] for row in server.details(range(count))]
    start = time.perf_counter()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(server.get, addresses))
    return count / (time.perf_counter() - start)


def by_pillow(photos: PhotoSet) -> float:
    """Images a second."""
    start = time.perf_counter()
    for file in photos.files:
        with Image.open(file) as image:
            image.draft("RGB", (THUMBNAIL, THUMBNAIL))
            image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
            image.convert("RGB").save(io.BytesIO(), "JPEG", quality=82)
    return len(photos.files) / (time.perf_counter() - start)


def edit(server: Server, number: int) -> None:
    (row,) = server.details(range(number, number + 1))
    captions = [f"{row['captions'][0][:20]} {time.time()}"]
    server.post("/api/edit", {"edits": [{"n": number, "version": row["version"], "captions": captions}]})


def reject(server: Server, number: int) -> None:
    (row,) = server.details(range(number, number + 1))
    edit = {"n": number, "version": row["version"], "rejected": not row["rejected"]}
    server.post("/api/edit", {"edits": [edit]})


def measure(folder: Path, cache: Path, images: int) -> dict[str, list[float]]:
    """One round: what each thing took, in seconds."""
    server = Server(folder, cache)
    assert len(server.rows) == images
    try:
        return {
            "from the command to the first 60 rows": [server.seconds],
            "CPU seconds of the server until then": [server.cpu],
            "an edit, until it is on the disk": [clock(lambda n=n: edit(server, n)) for n in range(7, 12)],
            "a rejection": [clock(lambda: reject(server, 99)) for _ in range(3)],
            "a search in all captions": [clock(lambda: server.get("/api/rows?filter=house+AND+-123"))],
            "120 rows": [clock(lambda: server.details(range(5000, 5120)))],
            "a page of 60 thumbnails": [60 / thumbnails(server, 60)],
            "looking at the disk": [clock(lambda: server.get("/api/changes?since=0"))],
            "until captions and sizes are read": [clock(server.wait)],
            "an edit after that": [clock(lambda n=n: edit(server, n)) for n in range(207, 212)],
        }
    finally:
        server.close()


def compare_thumbnails(photos: PhotoSet, scratch: Path) -> None:
    folder = scratch / "photos"
    folder.mkdir()
    for file in photos.files:
        os.link(file, folder / file.name)
    cold, kept, pillow = [], [], []
    for number in range(ROUNDS):
        server = Server(folder, scratch / f"cache-{number}")
        cold.append(thumbnails(server, len(photos.files)))
        kept.append(thumbnails(server, len(photos.files)))
        server.close()
        pillow.append(by_pillow(photos))
    ratio = statistics.median(ours / theirs for ours, theirs in zip(cold, pillow, strict=True))
    print("thumbnails of 3000×2000 a second")
    print(f"  cold                {statistics.median(cold):7.0f}")
    print(f"  Pillow, one thread  {statistics.median(pillow):7.0f}  ({ratio:.1f} ×)")
    print(f"  cached              {statistics.median(kept):7.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--form", choices=["txt", "metadata"], default="txt", help="where the captions are")
    parser.add_argument("--thumbnails", action="store_true", help="compare thumbnails of large photos with Pillow's")
    parser.add_argument("--photos", type=Path, help="a folder of photographs instead of Debian's package")
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache/benchmarks", help="where the sets are kept")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.cache) as scratch:
        if arguments.thumbnails:
            (photos,) = photo_sets(arguments.cache, arguments.photos, ["large"])
            compare_thumbnails(photos, Path(scratch))
            return
        folder = Path(scratch, "images")
        make(folder, arguments.images, arguments.form)
        rounds = [measure(folder, Path(scratch, f"cache-{number}"), arguments.images) for number in range(ROUNDS)]
        where = ".txt files" if arguments.form == "txt" else "metadata.jsonl"
        print(f"{arguments.images:,} images, captions in {where}; load of the machine {os.getloadavg()[0]:.1f}")
        for name in rounds[0]:
            seconds = [one for found in rounds for one in found[name]]
            print(f"  {name:40} {statistics.median(seconds):8.3f} s  ({max(seconds):.3f})")


if __name__ == "__main__":
    main()
