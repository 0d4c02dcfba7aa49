"""How long does `calotype preview` take for 64 samples at 1024 px, and how large is its page?

python benchmarks/preview.py [--tokenizers FOLDER] [--photos DIR]

The whole command, from its start to the written file: three further epochs and a caption of about forty words per
sample; with random crops, flips and colors. Photos are those of raw.py.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _photos import PHOTOS, PhotoSet, photo_sets

COMMAND = Path(sys.executable).parent / "calotype"
HERE = Path(__file__).parent
ROUNDS = 3
WORDS = ("photo", "red", "green", "blue", "cat", "dog", "house", "tree", "sky", "light", "shadow", "river", "bright")


def write_config(folder: Path, photos: PhotoSet) -> Path:
    """The photos with captions, and a config that augments as people do."""
    rng = np.random.default_rng(0)
    images = folder / "photos"
    images.mkdir()
    lines = []
    for file in photos.files:
        os.link(file, images / file.name)
        parts = [" ".join(rng.choice(WORDS, 5)) for _ in range(8)]
        lines.append(json.dumps({"file_name": file.name, "text": ", ".join(parts)}))
    (images / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    config = folder / "config.yaml"
    transform = (
        "{random_crop: {scale: [0.7, 1.0]}, horizontal_flip: 0.5, color_jitter: {brightness: 0.1, saturation: 0.1}}"
    )
    config.write_text(
        f"dataset:\n  path: {images}\n  resolution: 1024\n  img_transform: {transform}\n"
        "  caption_transform: {trigger: calotypist, shuffle_parts: 0.5, drop_parts: 0.1}\n"
        "loader: {batch_size: 8}\n"
    )
    return config


def measure(config: Path, output: Path, options: list[str]) -> tuple[float, float, float]:
    """(seconds, CPU-seconds, megabytes)."""
    before, start = cpu_seconds(), time.perf_counter()
    done = subprocess.run(
        [COMMAND, "preview", config, *options, "--batches", str(PHOTOS), "-o", output, "--json"],
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    batches = json.loads(done.stdout.splitlines()[-1])["batches"]
    assert sum(len(batch["samples"]) for batch in batches) == PHOTOS
    return seconds, cpu_seconds() - before, output.stat().st_size / 1e6


def cpu_seconds() -> float:
    """Of the processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizers", type=Path, help="FLUX.1's: then tokens are shown too")
    parser.add_argument("--photos", type=Path, help="a folder of photographs instead of Debian's package")
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache/benchmarks", help="where the sets are kept")
    arguments = parser.parse_args()
    options = ["--model", "flux.1-dev", "--tokenizers", str(arguments.tokenizers)] if arguments.tokenizers else []
    print(f"calotype preview, {PHOTOS} samples at 1024 px, {len(os.sched_getaffinity(0))} cores; medians of {ROUNDS}:")
    for photos in photo_sets(arguments.cache, arguments.photos, ["large", "small"]):
        with tempfile.TemporaryDirectory(dir=arguments.cache) as folder:
            config = write_config(Path(folder), photos)
            runs = [measure(config, Path(folder, "page.html"), options) for _ in range(ROUNDS)]
        seconds, cpu, megabytes = (statistics.median(values) for values in zip(*runs, strict=True))
        print(
            f"  {photos.megapixels:.1f} MP JPEGs  {seconds:5.1f} s "
            f"({min(run[0] for run in runs):.1f} – {max(run[0] for run in runs):.1f})  "
            f"{cpu:5.1f} CPU-s  {megabytes:4.1f} MB"
        )


if __name__ == "__main__":
    main()
