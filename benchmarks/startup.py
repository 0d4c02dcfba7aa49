"""How soon is the first batch there, compared with torch's DataLoader?

    python benchmarks/startup.py [--images 20] [--resolution 512] [--rounds 7] [--against CHECKOUT] [--json]

From the call of `text_to_image_dataset` to the first batch, with torch imported already, each in a new process:

    loader        calotype.Loader, as it is by default
    process       calotype.Loader, whose first batch comes from the loader process
    in_process    calotype.Loader(in_process=True)
    dataloader    torch's DataLoader with 2 forked workers and a calotype.BatchSampler

Prints medians of seconds and of processor seconds of the trainer's process, and the ratio to `dataloader`, with all
contestants in turns in each round. `--against` also runs `loader` of another checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

ROOT = Path(__file__).parents[1]
CHILD = """
import json, sys, time
import torch
import calotype
kind, photos, resolution = sys.argv[1], sys.argv[2], int(sys.argv[3])
start, cpu = time.perf_counter(), time.process_time()
dataset = calotype.text_to_image_dataset(path=photos, resolution=resolution)
if kind == "process":
    import calotype.loader.loader
    from calotype.loader.source import ProcessSource
    calotype.loader.loader.StartingSource = ProcessSource
if kind == "dataloader":
    sampler = calotype.BatchSampler(dataset, 4)
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=sampler, num_workers=2, multiprocessing_context="fork"
    )
else:
    loader = calotype.Loader(dataset, 4, in_process=kind == "in_process")
next(iter(loader))
print(json.dumps({"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}))
"""


def make(folder: Path, images: int) -> None:
    originals = [Image.fromarray(getattr(data, name)()).convert("RGB") for name in ("astronaut", "chelsea", "coffee")]
    for number in range(images):
        size = (1280, 960) if number % 2 else (960, 1280)
        originals[number % len(originals)].resize(size).save(folder / f"{number:02}.jpg", quality=92)
        (folder / f"{number:02}.txt").write_text(f"photo {number}")


def measure(kind: str, checkout: Path, folder: Path, resolution: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, kind, str(folder), str(resolution)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(checkout), "CALOTYPE_CACHE": cache},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    contestants = {kind: (kind, ROOT) for kind in ("loader", "process", "in_process", "dataloader")}
    if options.against:
        contestants["against"] = ("loader", options.against.resolve())
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), options.images)
        for _ in range(1 + options.rounds):  # the first round warms the system's caches
            for name, (kind, checkout) in contestants.items():
                found[name].append(measure(kind, checkout, Path(folder), options.resolution))
    rows = {
        name: {key: statistics.median(one[key] for one in rounds[1:]) for key in ("seconds", "cpu")}
        for name, rounds in found.items()
    }
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for name, row in rows.items():
        ratio = row["seconds"] / rows["dataloader"]["seconds"]
        print(f"{name:<12} {row['seconds']:.2f} s   {row['cpu']:.2f} CPU s   × {ratio:.2f}")


if __name__ == "__main__":
    main()
