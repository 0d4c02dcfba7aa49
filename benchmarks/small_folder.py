"""How long do `calotype info`, `check` and `preview` take for a folder of 20 photos?

python benchmarks/small_folder.py [--rounds N]

Each whole command in a process of its own, beside a process that imports torch and does nothing: most of the time is
that import. The commands of a round run one after another, so that a busy machine slows all of them. `check` looks at
everything anew, then prints the cached report.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import skimage
from PIL import Image

COMMAND = str(Path(sys.executable).parent / "calotype")
PHOTOS = 20


def write_photos(folder: Path) -> None:
    """Photos of about a megapixel with a caption each, from those of scikit-image."""
    folder.mkdir()
    sources = [Path(skimage.__file__).parent / "data" / name for name in ("coffee.png", "chelsea.png", "astronaut.png")]
    for number in range(PHOTOS):
        image = Image.open(sources[number % len(sources)]).convert("RGB")
        image.resize((1200, 900 - 20 * number)).save(folder / f"{number:02d}.jpg", quality=92)
        (folder / f"{number:02d}.txt").write_text(f"a photo, number {number}")


def measure(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(seconds, CPU-seconds) of a process and its children."""
    before, start = cpu_seconds(), time.perf_counter()
    done = subprocess.run(arguments, env=environment, capture_output=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr.decode())
    return time.perf_counter() - start, cpu_seconds() - before


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        photos = home / "photos"
        write_photos(photos)
        environment = os.environ | {"CALOTYPE_CACHE": str(home / "cache")}
        folder = [str(photos), "resolution=512"]
        contestants = {
            "import torch": [sys.executable, "-c", "import torch"],
            "info": [COMMAND, "info", *folder],
            "check --fresh": [COMMAND, "check", *folder, "--fresh"],
            "check, cached": [COMMAND, "check", *folder],
            "preview": [COMMAND, "preview", *folder, "-o", str(home / "page.html")],
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
        for round_ in range(rounds + 1):
            for name, arguments in contestants.items():
                measured = measure(arguments, environment)
                if round_:  # the first one fills the caches of files
                    found[name].append(measured)
    print(f"{PHOTOS} photos, medians of {rounds}: seconds, CPU-seconds, CPU-seconds × those of importing torch")
    torch_cpu = statistics.median(cpu for _, cpu in found["import torch"])
    for name, times in found.items():
        seconds, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:14} {seconds:6.2f} {cpu:6.2f} {cpu / torch_cpu:6.1f}")


if __name__ == "__main__":
    main()
