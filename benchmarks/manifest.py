"""How fast and in how much memory a manifest of a million rows opens, each file in a fresh process.

    python benchmarks/manifest.py [rows] [--json]

Prints seconds of the import, seconds (and processor seconds) inside `load_manifest`, the process's peak resident
memory, the time for one row at random and the size of the manifest's pickle.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

CHILD = """
import json, sys, time
start = time.perf_counter()
from calotype.manifest import load_manifest
imported, cpu = time.perf_counter(), time.process_time()
manifest = load_manifest(sys.argv[1])
opened, cpu = time.perf_counter(), time.process_time() - cpu
rows, last = len(manifest), manifest[len(manifest) - 1]
assert last.captions and last.width
for i in range(0, rows, rows // 1000):
    manifest[i]
read = time.perf_counter()
import pickle
# Not ru_maxrss: a child inherits that of the process it was forked from.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({
    "rows": rows, "import_s": imported - start, "open_s": opened - imported, "open_cpu_s": cpu,
    "row_us": (read - opened) / 1001 * 1e6, "pickle_bytes": len(pickle.dumps(manifest)),
    "peak_mb": peak / 1024,
}))
"""


def make(folder: Path, rows: int) -> list[Path]:
    draw = random.Random(0)
    words = [
        "a",
        "photo",
        "of",
        "the",
        "old",
        "red",
        "boat",
        "on",
        "calm",
        "water",
        "under",
        "evening",
        "light",
        "with",
        "two",
        "birds",
        "and",
        "distant",
        "hills",
    ]
    images = [f"images/{i // 1000:05d}/{i:09d}.jpg" for i in range(rows)]
    captions = [" ".join(draw.choices(words, k=draw.randint(6, 24))) for _ in range(rows)]
    sizes = [(draw.randint(512, 4096), draw.randint(512, 4096)) for _ in range(rows)]
    data = {"image": images, "caption": captions, "width": [w for w, _ in sizes], "height": [h for _, h in sizes]}
    files = [folder / f"rows.{suffix}" for suffix in ("parquet", "jsonl", "csv", "tsv")]
    pq.write_table(pa.table(data), files[0])
    with files[1].open("w") as lines:
        for image, caption, (width, height) in zip(images, captions, sizes, strict=True):
            row = {"image": image, "caption": caption, "width": width, "height": height}
            lines.write(json.dumps(row) + "\n")
    for file, delimiter in zip(files[2:], ",\t", strict=True):
        with file.open("w") as lines:
            lines.write(delimiter.join(["image", "caption", "width", "height"]) + "\n")
            for image, caption, (width, height) in zip(images, captions, sizes, strict=True):
                lines.write(delimiter.join([image, caption, str(width), str(height)]) + "\n")
    return files


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    rows = numbers[0] if numbers else 1_000_000
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        print(
            f"{'':8} {'file MB':>8} {'import s':>9} {'open s':>7} {'cpu s':>6} {'peak MB':>8} {'µs a row':>9} "
            f"{'pickle B':>9}"
        )
        for file in make(Path(folder), rows):
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(file)],
                env={"CALOTYPE_CACHE": f"{folder}/cache", "PATH": ""},
                capture_output=True,
                text=True,
                check=True,
            )
            got = json.loads(done.stdout)
            figures.append({"file": file.suffix[1:], **got})
            print(
                f"{file.suffix[1:]:8} {file.stat().st_size / 1e6:8.0f} {got['import_s']:9.2f} {got['open_s']:7.2f} "
                f"{got['open_cpu_s']:6.2f} {got['peak_mb']:8.0f} {got['row_us']:9.1f} {got['pickle_bytes']:9d}"
            )
    if "--json" in sys.argv:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
