"""How soon does `calotype studio` show 20,000 images, and how fast are its responses and thumbnails?

python benchmarks/studio.py [--pictures N] [--photos DIR]

Photos are the large ones of raw.py (3000×2000), linked under 20,000 names with a caption each, as `metadata.jsonl` and
as `.txt` files. The server is the real one, in a separate process, queried over HTTP. Thumbnails are of 64 different
photos: cold (decoded, scaled, encoded) and cached; compared with Pillow, one thread, with its scaled decode (`draft`).
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
        self.seconds = time.perf_counter() - start

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

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def make(folder: Path, photos: PhotoSet, images: int, *, sidecars: bool) -> None:
    folder.mkdir()
    lines = []
    for number in range(images):
        name = f"{number:06d}.jpg"
        os.link(photos.files[number % len(photos.files)], folder / name)
        text = f"a photo of a red house, number {number}, with a tree, at noon"
        if sidecars:
            (folder / name).with_suffix(".txt").write_text(text + "\n")
        lines.append(json.dumps({"file_name": name, "text": text}))
    if not sidecars:
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def clock(do: Any, rounds: int = ROUNDS) -> float:
    """Median seconds."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        do()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


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


def edit(server: Server) -> None:
    (row,) = server.details(range(7, 8))
    captions = [f"{row['captions'][0][:20]} {time.time()}"]
    server.post("/api/edit", {"edits": [{"n": 7, "version": row["version"], "captions": captions}]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--photos", type=Path, help="a folder of photographs instead of Debian's package")
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache/benchmarks", help="where the sets are kept")
    arguments = parser.parse_args()
    (photos,) = photo_sets(arguments.cache, arguments.photos, ["large"])
    with tempfile.TemporaryDirectory(dir=arguments.cache) as scratch:
        for sidecars in (False, True):
            form = ".txt files" if sidecars else "metadata.jsonl"
            folder = Path(scratch, "txt" if sidecars else "metadata")
            make(folder, photos, arguments.pictures, sidecars=sidecars)
            starts, cold, kept, pillow = [], [], [], []
            for number in range(ROUNDS):
                server = Server(folder, Path(scratch, f"cache-{sidecars}-{number}"))
                assert len(server.rows) == arguments.pictures
                starts.append(server.seconds)
                cold.append(thumbnails(server, len(photos.files)))
                kept.append(thumbnails(server, len(photos.files)))
                pillow.append(by_pillow(photos))
                if number == ROUNDS - 1:
                    found = clock(lambda server=server: server.get("/api/rows?filter=house+AND+-123"))
                    window = clock(lambda server=server: server.details(range(5000, 5120)))
                    change = clock(lambda server=server: edit(server))
                server.close()
            print(f"{arguments.pictures:,} images, {form}")
            print(f"  from the command to the first 60 rows      {statistics.median(starts):7.2f} s")
            print(f"  a filter over all of them                  {1000 * found:7.1f} ms")
            print(f"  120 rows                                   {1000 * window:7.1f} ms")
            print(f"  an edit, until it is on the disk           {1000 * change:7.0f} ms")
            print(f"  thumbnails of 3000×2000, cold              {statistics.median(cold):7.0f} /s")
            print(f"  the same by Pillow, one thread             {statistics.median(pillow):7.0f} /s")
            ratio = statistics.median(ours / theirs for ours, theirs in zip(cold, pillow, strict=True))
            print(f"  ratio                                      {ratio:7.1f} ×")
            print(f"  thumbnails that are kept                   {statistics.median(kept):7.0f} /s")


if __name__ == "__main__":
    main()
