"""How fast and in how much memory a manifest of a million rows, or of a folder of 100,000 images, opens.

    python benchmarks/manifest.py [--rows 1000000] [--images 100000] [--rounds 1] [--against CHECKOUT] [--json]

Each opens in a new process with its own cache folder. Prints seconds of the import, seconds (and processor
seconds) inside `load_manifest`, the process's peak resident memory, the time for one row at random and the size of the
manifest's pickle: medians of the rounds. `--against` also opens the same data with the calotype of another
checkout, in turns, and prints the ratios.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
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
assert last.captions
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
    text = draw.choices(words, k=100_000)
    starts = [int(draw.random() * (len(text) - 24)) for _ in range(rows)]
    captions = [" ".join(text[start : start + 6 + int(draw.random() * 19)]) for start in starts]
    sizes = [(512 + int(draw.random() * 3585), 512 + int(draw.random() * 3585)) for _ in range(rows)]
    data = {"image": images, "caption": captions, "width": [w for w, _ in sizes], "height": [h for _, h in sizes]}
    files = [folder / f"rows.{suffix}" for suffix in ("parquet", "jsonl", "csv", "tsv")]
    pq.write_table(pa.table(data), files[0])
    with files[1].open("w") as lines:
        lines.writelines(
            f'{{"image": "{image}", "caption": "{caption}", "width": {width}, "height": {height}}}\n'
            for image, caption, (width, height) in zip(images, captions, sizes, strict=True)
        )
    for file, delimiter in zip(files[2:], ",\t", strict=True):
        with file.open("w") as lines:
            lines.write(delimiter.join(["image", "caption", "width", "height"]) + "\n")
            lines.writelines(
                f"{image}{delimiter}{caption}{delimiter}{width}{delimiter}{height}\n"
                for image, caption, (width, height) in zip(images, captions, sizes, strict=True)
            )
    return files


def make_folder(folder: Path, images: int) -> Path:
    """Images of no bytes, which nobody opens, with a caption file each, a thousand a folder."""
    root = folder / "folder"
    for number in range(images):
        inside = root / f"{number // 1000:03d}"
        if number % 1000 == 0:
            inside.mkdir(parents=True)
        (inside / f"{number:06d}.jpg").touch()
        (inside / f"{number:06d}.txt").write_text(f"a photo of boat {number} on calm water")
    return root


def opened(data: Path, code: Path, cache: Path) -> dict[str, float]:
    """The figures of one fresh process that imports the calotype of a checkout."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(data)],
        env={"CALOTYPE_CACHE": str(cache), "PATH": "", "PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--images", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--against", type=Path)
    options.add_argument("--json", action="store_true")
    args = options.parse_args()
    sides = {"here": Path(__file__).parents[1]} | ({"there": args.against.resolve()} if args.against else {})
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        print(
            f"{'':8} {'':6} {'file MB':>8} {'import s':>9} {'open s':>7} {'cpu s':>6} {'peak MB':>8} {'µs a row':>9} "
            f"{'pickle B':>9}"
        )
        for data in [*make(Path(folder), args.rows), make_folder(Path(folder), args.images)]:
            runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
            for number in range(args.rounds):
                for side, code in sides.items() if number % 2 else reversed(sides.items()):
                    runs[side].append(opened(data, code, Path(folder) / f"cache-{side}-{number}"))
            name = data.suffix[1:] or data.name
            medians = {
                side: {key: statistics.median(run[key] for run in several) for key in several[0]}
                for side, several in runs.items()
            }
            size = data.stat().st_size / 1e6 if data.is_file() else 0
            for side, got in medians.items():
                figures.append({"file": name, "side": side, **got})
                print(
                    f"{name:8} {side:6} {size:8.0f} {got['import_s']:9.2f} {got['open_s']:7.2f} "
                    f"{got['open_cpu_s']:6.2f} {got['peak_mb']:8.0f} {got['row_us']:9.1f} {got['pickle_bytes']:9.0f}"
                )
            if "there" in medians:
                ratios = {key: medians["here"][key] / medians["there"][key] for key in medians["here"]}
                print(
                    f"{name:8} {'ratio':6} {'':8} {ratios['import_s']:9.2f} {ratios['open_s']:7.2f} "
                    f"{ratios['open_cpu_s']:6.2f} {ratios['peak_mb']:8.2f} {ratios['row_us']:9.2f}"
                )
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
