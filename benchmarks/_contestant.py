"""One contestant in a process of its own: opens its loader, then runs whole epochs when it is told to.

Commands come in as lines; each is answered with one line of JSON. `raw.py` starts this file.

    first PATH SECONDS    whole epochs until so much time has gone by; keeps the first batch in PATH (.npy)
    run SECONDS           a timed turn of whole epochs, the first one's first batches left out
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _measure import cpu_seconds
from peers import CONTESTANTS, Epoch, Job

LEAD = 4
"""Batches at the start of a turn that are not counted: as many as any contestant may have made while it waited."""


def main(name: str, facts: str) -> None:
    # Answers leave through a copy of standard output, so that what a library prints can't be taken for one.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    contestant = next(c for c in CONTESTANTS if c.name == name)
    fields = json.loads(facts)
    job = Job(**{k: Path(v) if k in {"folder", "shards", "scratch"} else v for k, v in fields.items()})
    epoch = importlib.import_module(f"peers.{contestant.module}").open_loader(job, **dict(contestant.options))
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        command, *arguments = line.split()
        answer = _first(epoch, *arguments) if command == "first" else _run(epoch, *arguments)
        print(json.dumps(answer), file=answers)


def _first(epoch: Epoch, path: str, seconds: str) -> dict[str, Any]:
    start, epochs = time.perf_counter(), 0
    images: list[int] = []
    while not epochs or time.perf_counter() - start < float(seconds):
        images.append(0)
        for batch in epoch():
            if not epochs and not images[0]:
                np.save(path, batch.numpy())
            images[-1] += len(batch)
        epochs += 1
    return {"images": images}


def _run(epoch: Epoch, seconds: str) -> dict[str, Any]:
    images, elapsed, lead = 0, 0.0, LEAD
    cpu = start = 0.0
    while elapsed < float(seconds):
        for batch in epoch():
            if lead:
                lead -= 1
                if not lead:
                    cpu, start = cpu_seconds(os.getpid()), time.perf_counter()
                continue
            images += len(batch)
        elapsed = time.perf_counter() - start
    return {"images": images, "seconds": elapsed, "cpu_seconds": cpu_seconds(os.getpid()) - cpu}


if __name__ == "__main__":
    main(*sys.argv[1:])
