"""Photos to batches, side by side: calotype's Loader, common alternatives, and the limit of the machine.

    python benchmarks/raw.py                          # everything: about ten minutes on two cores
    python benchmarks/raw.py --sets large --sizes 512 --only sketch torchvision calotype
    python benchmarks/raw.py --json out.json --markdown

Each contestant has a separate process, and they take turns: in a round each of them loads complete epochs of the same
photos for a second or more. A temporary slowdown of the machine affects all of them, so the ratios within a round are
stable. The first epoch (start-up, files into the page cache) is not timed; in it memory is measured and the pixels are
compared with PIL's. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from _accuracy import Reference
from _measure import PeakMemory
from _photos import PHOTOS, SIZES, PhotoSet, photo_sets
from _process import ContestantError, Process, installed, job_as_text, machine, say
from _report import Cell, show
from peers import CONTESTANTS, Contestant, Job

HERE = Path(__file__).parent
MEMORY_SECONDS = 5.0
"""For how long memory is watched, in whole epochs."""


def measure(photos: PhotoSet, size: int, chosen: list[Contestant], options: argparse.Namespace) -> Cell:
    """All rounds of one set of photos at one target size."""
    results: dict[str, dict[str, Any]] = {}
    processes: dict[str, Process] = {}
    with tempfile.TemporaryDirectory(prefix="calotype-raw-") as folder, contextlib.ExitStack() as stack:
        say(f"{photos.name} → {size} px: starting")
        for contestant in chosen:
            if contestant.needs is not None and not installed(contestant.needs):
                results[contestant.name] = {"missing": f"{contestant.needs} is not installed"}
                continue
            scratch = Path(folder) / contestant.name
            scratch.mkdir()
            job = Job(
                folder=photos.folder.resolve(),
                shards=photos.shards.resolve(),
                size=size,
                batch_size=options.batch_size,
                workers=options.workers,
                scratch=scratch,
            )
            process = Process(HERE / "_contestant.py", contestant.name, job_as_text(job), log=scratch / "said.log")
            stack.callback(process.close)
            processes[contestant.name] = process
        reference = Reference(photos.files, size)
        for name, process in list(processes.items()):
            say(f"{photos.name} → {size} px: first epoch of {name}")
            try:
                results[name] = first_epoch(process, reference, Path(folder) / name)
            except (ContestantError, ValueError) as error:
                results[name] = {"missing": str(error)}
                del processes[name]
        for number in range(options.rounds):
            say(f"{photos.name} → {size} px: round {number + 1} of {options.rounds}")
            names = list(processes)
            shift = number % max(1, len(names))  # so that nobody always follows the same one
            for name in names[shift:] + names[:shift]:
                ran = processes[name].ask(f"run {options.seconds}")
                results[name]["rates"].append(ran["images"] / ran["seconds"])
                results[name]["cpu_ms"].append(1e3 * ran["cpu_seconds"] / ran["images"])
    return Cell(photos=photos.name, size=size, results={c.name: results[c.name] for c in chosen})


def first_epoch(process: Process, reference: Reference, scratch: Path) -> dict[str, Any]:
    """Start-up and whole epochs for a while, untimed: peak memory, and a batch held against PIL's pixels."""
    kept = scratch / "first.npy"
    process.answer()  # it is open
    with PeakMemory(process.pid) as memory:
        images = process.ask(f"first {kept} {MEMORY_SECONDS}")["images"]
    if set(images) != {PHOTOS}:
        raise ValueError(f"epochs had {images} images, expected {PHOTOS}")
    return {"rates": [], "cpu_ms": [], "memory_mb": memory.mb, "psnr_db": reference.psnr(np.load(kept))}


def cells(sets: list[PhotoSet], chosen: list[Contestant], options: argparse.Namespace) -> Iterator[Cell]:
    for photos in sets:
        for size in options.sizes:
            yield measure(photos, size, chosen, options)


def main() -> None:
    names = [contestant.name for contestant in CONTESTANTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of photographs to cut the sets from (default: downloaded)")
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache/benchmarks", help="where the sets are kept")
    parser.add_argument("--sets", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024], help="sides of the square, in pixels")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="a turn lasts as many whole epochs as this takes")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write every figure of every round to this file")
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    options = parser.parse_args()

    sets = photo_sets(options.cache, options.photos, options.sets)
    chosen = [contestant for contestant in CONTESTANTS if contestant.name in options.only]
    facts = {
        "machine": machine(),
        "workers": options.workers,
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "sets": [
            {"name": s.name, "photos": len(s.files), "megapixels": s.megapixels, "megabytes": s.megabytes} for s in sets
        ],
    }
    measured = list(cells(sets, chosen, options))
    if options.json is not None:
        options.json.write_text(json.dumps({**facts, "cells": [asdict(cell) for cell in measured]}, indent=1) + "\n")
    show(measured, facts, markdown=options.markdown)


if __name__ == "__main__":
    main()
