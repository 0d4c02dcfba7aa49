"""How fast does `calotype convert` copy 1,000 images, or pack them, compared with `cp -r`?

python benchmarks/convert.py [images]

`cp -r` leaves its output in the page cache; calotype flushes to disk before the result appears, hashes every image and
reads it back. So `cp -r` is timed alone and with an equivalent flush.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import skimage.data
from PIL import Image

from calotype.convert import plan_conversion, run_conversion, verify_conversion
from calotype.manifest import load_manifest

ROUNDS = 5
WIDTH, HEIGHT = 1280, 960


def make(folder: Path, count: int) -> int:
    """Windows of real photos, each another one, as JPEGs with two captions each; gives their bytes."""
    rng = np.random.default_rng(0)
    names = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")
    sources = [Image.fromarray(np.asarray(getattr(skimage.data, name)())).convert("RGB") for name in names]
    total = 0
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as metadata:
        for index in range(count):
            photo = sources[index % len(sources)]
            side = min(photo.size) * 3 // 4
            left, top = (int(rng.integers(0, room - side + 1)) for room in photo.size)
            file = folder / f"{index:06d}.jpg"
            window = photo.crop((left, top, left + side, top + side)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            window.save(file, quality=90)
            total += file.stat().st_size
            metadata.write(json.dumps({"file_name": file.name, "text": [f"photo {index}", "a photo"]}) + "\n")
    return total


def copy(source: Path, out: Path) -> None:
    subprocess.run(["cp", "-r", source, out], check=True)


def copy_safely(source: Path, out: Path) -> None:
    copy(source, out)
    for path in (*out.rglob("*"), out):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def converter(to: str, images: Literal["link", "refer"] | None = None) -> Callable[[Path, Path], None]:
    def convert(source: Path, out: Path) -> None:
        run_conversion(plan_conversion(load_manifest(source), out, to=to, images=images))

    return convert


CONTESTANTS: dict[str, Callable[[Path, Path], None]] = {
    "cp -r": copy,
    "cp -r, then fsync of each file": copy_safely,
    "imagefolder, copy": converter("imagefolder"),
    "kohya, copy": converter("kohya"),
    "parquet, embed": converter("parquet"),
    "webdataset, embed": converter("webdataset"),
    "lmdb, embed": converter("lmdb"),
    "hf, embed": converter("hf"),
    "imagefolder, link": converter("imagefolder", "link"),
    "jsonl, refer": converter("jsonl", "refer"),
}


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary, "photos")
        source.mkdir()
        total = make(source, count)
        order = list(CONTESTANTS)
        for turn in range(ROUNDS + 1):
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                out = Path(temporary, "out")
                start = time.perf_counter()
                CONTESTANTS[name](source, out)
                if turn:  # the first round warms up
                    times[name].append(time.perf_counter() - start)
                shutil.rmtree(out)
        start = time.perf_counter()
        plan = plan_conversion(load_manifest(source), Path(temporary, "out"), to="imagefolder")
        run_conversion(plan)
        start = time.perf_counter()
        assert not verify_conversion(plan).differences
        verified = time.perf_counter() - start
    print(f"{count:,} JPEGs, {total / 1e6:,.0f} MB, {os.cpu_count()} cores, medians of {ROUNDS} rounds\n")
    print(f"{'':32} {'images/s':>10} {'MB/s':>8} {'x cp -r':>8} {'x with fsync':>12}")
    for name, taken in times.items():
        median = statistics.median(taken)
        plain, safe = (
            statistics.median(theirs / mine for theirs, mine in zip(times[other], taken, strict=True))
            for other in ("cp -r", "cp -r, then fsync of each file")
        )
        print(f"{name:32} {count / median:10,.0f} {total / median / 1e6:8,.0f} {plain:8.2f} {safe:12.2f}")
    print(f"{'--verify of the imagefolder':32} {count / verified:10,.0f} {total / verified / 1e6:8,.0f}")


if __name__ == "__main__":
    main()
