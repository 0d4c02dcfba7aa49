"""How long does `calotype check` take on a large folder: the first time, and when nothing has changed?

python benchmarks/check.py [images]

Half of the files are captions. Images are 1 MP JPEGs: some tens of different ones and hard links to them, so that
100,000 do not need 20 GB. (Linked files share size and mtime, which `check` does not exploit.)
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

COMMAND = Path(sys.executable).parent / "calotype"
DIFFERENT = 50
ROUNDS = 3
WORDS = (
    "photo",
    "red",
    "green",
    "blue",
    "cat",
    "dog",
    "house",
    "tree",
    "sky",
    "light",
    "shadow",
    "river",
    "bright",
    "sun",
)


def make(folder: Path, scratch: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(DIFFERENT):
        noise = rng.integers(0, 255, (24 + number % 9, 32, 3), np.uint8)
        Image.fromarray(noise).resize((1152, 896), Image.Resampling.BICUBIC).save(scratch / f"{number}.jpg", quality=88)
    for number in range(count):
        os.link(scratch / f"{number % DIFFERENT}.jpg", folder / f"{number:06d}.jpg")
        words = " ".join(rng.choice(WORDS, 30))
        (folder / f"{number:06d}.txt").write_text(f"{words} {number}")


def seconds(folder: Path, *options: str) -> float:
    start = time.perf_counter()
    done = subprocess.run(
        [COMMAND, "check", folder, "resolution=512", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    return time.perf_counter() - start


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as home:
        folder, scratch = Path(home, "photos"), Path(home, "scratch")
        folder.mkdir()
        scratch.mkdir()
        os.environ["CALOTYPE_CACHE"] = f"{home}/cache"
        make(folder, scratch, count)
        first = seconds(folder, "--headers")
        again = [seconds(folder, "--headers") for _ in range(ROUNDS)]
        (folder / "000000.txt").write_text("another caption")
        changed = seconds(folder, "--headers")
    print(f"calotype check --headers, {count:,} images of 1 MP with a caption file each, the whole command:")
    print(f"  first run                      {first:8.1f} s")
    print(f"  nothing changed, median of {ROUNDS}   {statistics.median(again):8.1f} s")
    print(f"  one caption changed            {changed:8.1f} s")


if __name__ == "__main__":
    main()
