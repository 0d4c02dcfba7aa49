"""How much time and memory per image does planning an encode job take?

python benchmarks/encode_plan.py [rows]

The images are tiny, so the result is the work per row and not the disk: finding a dataset's records, looking them up in
a store, and listing the missing ones. The first pass reads and hashes every file, the second finds the hashes cached.
Memory is the process's, at the end of each step.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import psutil
from PIL import Image

import calotype
from calotype.encodings.dataset_records import DatasetRecords, Fingerprints, Variants
from calotype.encodings.missing_records import find_missing
from calotype.encodings.store import EncodingStore

CHUNK = 1024
FINGERPRINTS = Fingerprints("0" * 32, "0" * 32)
"""Of no model: none is run."""


def make(folder: Path, rows: int) -> Path:
    """So many images of 96×72 that all differ, a thousand to a folder, and their data file."""
    lines = []
    for number in range(rows):
        name = f"{number // 1000:04d}/{number:08d}.png"
        if number % 1000 == 0:
            (folder / name).parent.mkdir(parents=True)
        pixels = np.frombuffer(number.to_bytes(3, "little"), np.uint8)
        Image.fromarray(np.broadcast_to(pixels, (72, 96, 3))).save(folder / name, compress_level=1)
        caption = f"number {number}, a photo of a cat on a wooden table beside a cup of coffee, in warm light"
        lines.append(json.dumps({"file_name": name, "text": caption}))
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "data.jsonl"


def measured(what: str, rows: int, step: Callable[[], Any]) -> Any:
    gc.collect()
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    result = step()
    spent = time.perf_counter() - start
    gc.collect()
    grown = psutil.Process().memory_info().rss - before
    print(f"{what:45} {spent / rows * 1e6:8.1f} µs a row   {grown / rows:8.0f} bytes a row")
    return result


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["CALOTYPE_CACHE"] = temporary + "/cache"
        data = make(Path(temporary, "data"), rows)
        store = EncodingStore(Path(temporary, "store"), create=True)
        print(f"{rows:,} images, one caption each; {os.cpu_count()} cores")

        def load() -> calotype.TextToImageDataset:
            return calotype.text_to_image_dataset(
                calotype.PixelsTransform(), path=str(data), model="flux.1-dev", resolution=64
            )

        def records() -> DatasetRecords:
            return DatasetRecords(dataset, FINGERPRINTS, Variants(), threads=os.cpu_count() or 1)

        dataset = measured("loading the data file", rows, load)
        measured("reading and hashing the files", rows, records)
        found = measured("… again: all remembered", rows, records)
        work = measured("listing what is missing (nothing is there)", rows, lambda: find_missing(found, store))
        chunk = cloudpickle.dumps(work.images[:CHUNK])
        print(f"sent to a worker for each image: {len(chunk) / CHUNK:.0f} bytes, in chunks of {CHUNK}")


if __name__ == "__main__":
    main()
