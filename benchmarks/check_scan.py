"""How fast does `calotype check` scan the images of a folder? 1 MP JPEGs, compared with Pillow reading headers.

python benchmarks/check_scan.py [files]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from calotype.check.facts import Facts, scan_facts
from calotype.images import ImageReader
from calotype.types import ImageRef

ROUNDS = 3
SIDE = 1024
DECODED = 5
"""One of so many images takes part in the deep look, which is slower by far."""


def photos() -> list[Image.Image]:
    names = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")
    return [Image.fromarray(np.asarray(getattr(skimage.data, name)())).convert("RGB") for name in names]


def make(folder: str, count: int) -> list[ImageRef]:
    """Windows of real photos, each another one, enlarged to 1 MP where need be."""
    rng = np.random.default_rng(0)
    sources = photos()
    refs = []
    for index in range(count):
        photo = sources[index % len(sources)]
        side = min(photo.size) * 3 // 4
        left, top = (int(rng.integers(0, room - side + 1)) for room in photo.size)
        path = f"{folder}/{index:06d}.jpg"
        window = photo.crop((left, top, left + side, top + side))
        window.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=90)
        refs.append(ImageRef(name=Path(path).name, path=path))
    return refs


def pillow(refs: list[ImageRef]) -> None:
    for ref in refs:
        with Image.open(str(ref.path)) as image:
            assert image.size == (SIDE, SIDE)


def measure(name: str, rates: dict[str, list[float]], refs: list[ImageRef], *, deep: bool) -> list[Facts]:
    start = time.process_time()
    found = scan_facts(refs, ImageReader(), deep=deep, threads=os.cpu_count() or 1)
    rates.setdefault(name, []).append(len(refs) / (time.process_time() - start))
    assert all(one.problem is None for one in found)
    return found


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as folder:
        refs = make(folder, count)
        megabytes = sum(Path(str(ref.path)).stat().st_size for ref in refs) / 1e6
        some = refs[::DECODED]
        rates: dict[str, list[float]] = {}
        os.environ["CALOTYPE_CACHE"] = f"{folder}/warming"
        scan_facts(some[:10], ImageReader(), deep=True, threads=1)  # imports
        for round in range(ROUNDS):
            start = time.process_time()
            pillow(refs)
            rates.setdefault("PIL.Image.open(…).size", []).append(count / (time.process_time() - start))
            os.environ["CALOTYPE_CACHE"] = f"{folder}/cache-{round}"
            measure("headers, first run", rates, refs, deep=False)
            measure("headers, again", rates, refs, deep=False)
            first = measure("every pixel, first run", rates, some, deep=True)
            assert measure("every pixel, again", rates, some, deep=True) == first
    print(f"{count} JPEGs of 1 MP ({megabytes / count:.2f} MB each) in the page cache; medians of {ROUNDS}")
    least = statistics.median(rates["PIL.Image.open(…).size"])
    print(f"{'':24} files per CPU-second   × Pillow's headers")
    for name, values in rates.items():
        print(f"{name:24} {statistics.median(values):20,.0f}   {statistics.median(values) / least:17.2f}")


if __name__ == "__main__":
    main()
