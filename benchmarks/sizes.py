"""How fast are the sizes of a folder's images found? 1 MP JPEGs, headers only, then from the cache.

python benchmarks/sizes.py [files]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from calotype.images import ImageReader, scan_sizes
from calotype.types import ImageRef

ROUNDS = 3


def pillow(refs: list[ImageRef]) -> None:
    for ref in refs:
        with Image.open(str(ref.path)) as image:
            image.getexif().get(0x0112)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).integers(0, 255, (32, 40, 3), np.uint8)
        photo = Image.fromarray(noise).resize((1280, 800), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112], exif[0x010F], exif[0x0110] = 6, "A maker", "A model"
        photo.save(f"{folder}/0.jpg", quality=90, exif=exif)
        data = Path(folder, "0.jpg").read_bytes()
        refs = []
        for index in range(count):
            Path(folder, f"{index}.jpg").write_bytes(data)
            refs.append(ImageRef(name=f"{index}.jpg", path=f"{folder}/{index}.jpg"))
        rates: dict[str, list[float]] = {}
        for round in range(ROUNDS):
            start = time.process_time()
            pillow(refs)
            rates.setdefault("PIL.Image.open and EXIF", []).append(count / (time.process_time() - start))
            for threads in (1, 4):
                os.environ["CALOTYPE_CACHE"] = f"{folder}/cache-{round}-{threads}"
                for again in ("first run", "again"):
                    start = time.process_time()
                    sizes, errors = scan_sizes(refs, ImageReader(), threads=threads)
                    seconds = time.process_time() - start
                    assert not errors
                    assert (sizes == (1280, 800)).all()
                    rates.setdefault(f"scan_sizes, {threads} threads, {again}", []).append(count / seconds)
    print(f"{count} JPEGs of 1 MP ({len(data):,} bytes) in the page cache; files per second of CPU, median of {ROUNDS}")
    for name, values in rates.items():
        print(f"{name:36} {statistics.median(values):9,.0f}")


if __name__ == "__main__":
    main()
