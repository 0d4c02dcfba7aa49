"""One row of `raw.py`: opens its loader, then runs complete epochs on request.

first PATH SECONDS    complete epochs for at least SECONDS; saves the first batch to PATH (.npy)
run SECONDS           a timed turn of complete epochs, without the first batches of the first one
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _measure import cpu_seconds
from _process import job_from_text, serve
from peers import CONTESTANTS, Epoch

LEAD = 4
"""Batches at the start of a turn that are not counted: as many as any contestant may have made while it waited."""


def open_contestant(name: str, job: str) -> Callable[..., dict[str, Any]]:
    contestant = next(c for c in CONTESTANTS if c.name == name)
    module = importlib.import_module(f"peers.{contestant.module}")
    epoch: Epoch = module.open_loader(job_from_text(job), **dict(contestant.options))

    def obey(command: str, *arguments: str) -> dict[str, Any]:
        return first(epoch, *arguments) if command == "first" else run(epoch, *arguments)

    return obey


def first(epoch: Epoch, path: str, seconds: str) -> dict[str, Any]:
    start = time.perf_counter()
    images: list[int] = []
    while not images or time.perf_counter() - start < float(seconds):
        images.append(0)
        for batch in epoch():
            if images == [0]:
                np.save(path, batch.numpy())
            images[-1] += len(batch)
    return {"images": images}


def run(epoch: Epoch, seconds: str) -> dict[str, Any]:
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
    serve(lambda: open_contestant(*sys.argv[1:]))
