"""How long do the commands take for a folder of 20 photos?

python benchmarks/small_folder.py [--rounds N] [--only info train …] [--against CHECKOUT]

Each whole command in a process of its own, beside a process that imports torch and does nothing: most of the time is
that import. The commands of a round run one after another, so that a busy machine slows all of them. `check` looks at
everything anew, then prints the cached report. `train` is the time to the first line, after which it is interrupted;
`bench` measures all caches with a tiny local pipeline at 64 pixels, once in all: in bfloat16, as by default, a CPU
without instructions for it needs seconds for larger images. `--against` runs each command of another checkout,
too.
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

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tiny_pipelines import tiny_pipeline

ROOT = Path(__file__).parents[1]
PHOTOS = 20
TARGETS = {"init": 1.0, "info": 3.0, "check --fresh": 3.0, "train, first line": 2.0, "bench": 90.0}
"""Seconds on a machine of two cores that does nothing else."""


def write_photos(folder: Path) -> None:
    """Photos of about a megapixel with a caption each, from those of scikit-image."""
    folder.mkdir()
    sources = [Path(skimage.__file__).parent / "data" / name for name in ("coffee.png", "chelsea.png", "astronaut.png")]
    for number in range(PHOTOS):
        image = Image.open(sources[number % len(sources)]).convert("RGB")
        image.resize((1200, 900 - 20 * number)).save(folder / f"{number:02d}.jpg", quality=92)
        (folder / f"{number:02d}.txt").write_text(f"a photo, number {number}")


def measure(
    arguments: list[str], environment: dict[str, str], home: Path, *, first_line: bool = False
) -> tuple[float, float]:
    """(seconds, CPU-seconds) of a process and its children; or (seconds, 0) to its first line, where it is ended."""
    before, start = cpu_seconds(), time.perf_counter()
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(arguments, cwd=home, env=environment, stdout=pipe, stderr=both) as process:
        assert process.stdout is not None
        if first_line:
            said = process.stdout.readline()
            seconds = time.perf_counter() - start
            process.kill()
            if said.startswith(b"Training"):
                return seconds, 0.0
        else:
            said = process.communicate()[0]
    if first_line or process.returncode not in (0, 1):
        raise SystemExit(said.decode())
    return time.perf_counter() - start, cpu_seconds() - before


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def commands(home: Path, pipeline: Path) -> dict[str, list[str]]:
    """The arguments of each command."""
    photos = str(home / "photos")
    folder = [photos, "resolution=512"]
    return {
        "init": ["init", photos, "--model", "flux.1-dev", "--trigger", "ohwx", "-o", str(home / "x.yaml"), "--force"],
        "info": ["info", *folder],
        "check --fresh": ["check", *folder, "--fresh"],
        "check, cached": ["check", *folder],
        "preview": ["preview", *folder, "-o", str(home / "page.html")],
        "train, first line": ["train", *folder, "--model", str(pipeline), f"output_dir={home / 'lora'}", "max_steps=1"],
        "bench": ["bench", photos, "resolution=64", "--model", str(pipeline)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", metavar="COMMAND", help="Names begin so: info, check, train, bench, …")
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    checkouts = [ROOT, *([options.against.resolve()] if options.against else [])]
    found: dict[tuple[str, Path], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        write_photos(home / "photos")
        lines = commands(home, tiny_pipeline("sd-1.5"))
        only = tuple(options.only or lines)
        named = {"import torch": [], **{name: line for name, line in lines.items() if name.startswith(only)}}
        for round_ in range(options.rounds + 1):
            for name, line in named.items():
                if name == "bench" and round_ > 1:
                    continue
                for checkout in checkouts:
                    program = ["-m", "calotype", *line] if line else ["-c", "import torch"]
                    environment = os.environ | {
                        "PYTHONPATH": str(checkout),
                        "CALOTYPE_CACHE": str(home / f"cache{checkouts.index(checkout)}"),
                    }
                    first_line = name.endswith("first line")
                    measured = measure([sys.executable, *program], environment, home, first_line=first_line)
                    if round_:  # the first one fills the caches of files
                        found.setdefault((name, checkout), []).append(measured)
    print(f"{PHOTOS} photos, medians of {options.rounds}")
    print(f"{'':17} {'target':>7} {'seconds':>8} {'CPU-s':>6}")
    for (name, checkout), times in found.items():
        seconds, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        target = f"{TARGETS[name]:.1f}" if name in TARGETS else ""
        place = f"  {checkout}" if options.against else ""
        print(f"{name:17} {target:>7} {seconds:8.2f} {f'{cpu:.2f}' if cpu else '':>6}{place}")


if __name__ == "__main__":
    main()
