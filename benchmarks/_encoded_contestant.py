"""One turn of `encoded.py`, in a separate process.

write FIRST LAST       stores these samples; returns the CPU time
check                  one epoch, every sample compared with the stored one
first MOST             a timed turn: the first epoch, without its first batches, stopped after MOST seconds
later LEAST MOST       a timed turn: the epochs after the first, for at least LEAST seconds; also the first one's rate
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _measure import cpu_seconds
from _process import serve
from encoded_peers import CONTESTANTS, Epoch, Job, Samples

LEAD = 8
"""Batches of the first epoch that are not counted: while they come, processes start and make others ahead."""

IN_MEMORY = 256
"""Up to so many samples are there before writing is timed."""


class Turn:
    def __init__(self, name: str, job: str) -> None:
        contestant = next(one for one in CONTESTANTS if one.name == name)
        fields: dict[str, Any] = json.loads(job)
        self._job = Job(**fields | {"folder": Path(fields["folder"])})
        self._module = importlib.import_module(f"encoded_peers.{contestant.module}")
        self._options, self._write_options = dict(contestant.options), dict(contestant.write_options)

    def __call__(self, command: str, *arguments: str) -> dict[str, Any]:
        return getattr(self, command)(*arguments)

    def write(self, first: str, last: str) -> dict[str, Any]:
        numbers = range(int(first), int(last))
        samples = Samples(numbers if len(numbers) <= IN_MEMORY else ())
        if (prepare := getattr(self._module, "prepare", None)) is not None:
            prepare(self._job, numbers)
        before = cpu_seconds(os.getpid())
        self._module.write(self._job, samples, numbers, **self._write_options)
        return {"cpu_seconds": cpu_seconds(os.getpid()) - before}

    def check(self) -> dict[str, Any]:
        samples, seen = Samples(), []
        for batch in self._open()():
            seen += samples.numbers(batch)
        if sorted(seen) != list(range(self._job.samples)):
            raise ValueError(f"an epoch had {len(seen)} samples, {len(set(seen))} different ones")
        return {"samples": len(seen)}

    def first(self, most: str) -> dict[str, Any]:
        return _timed(self._open(), lead=LEAD, most=float(most))

    def later(self, least: str, most: str) -> dict[str, Any]:
        epoch = self._open()
        first = _timed(epoch, lead=LEAD, most=float(most))
        total = {"samples": 0, "seconds": 0.0, "cpu_seconds": 0.0}
        while total["seconds"] < float(least):
            total = {key: total[key] + value for key, value in _timed(epoch, lead=0, most=float(most)).items()}
        return total | {"first_rate": first["samples"] / first["seconds"]}

    def _open(self) -> Epoch:
        epoch: Epoch = self._module.open_loader(self._job, **self._options)
        return epoch


def _timed(epoch: Epoch, *, lead: int, most: float) -> dict[str, Any]:
    """One epoch without its first batches, as far as it comes in so many seconds."""
    count, elapsed = 0, 0.0
    cpu, start = cpu_seconds(os.getpid()), time.perf_counter()
    for number, batch in enumerate(epoch()):
        if number < lead:
            cpu, start = cpu_seconds(os.getpid()), time.perf_counter()
            continue
        count += len(batch["moments"])
        elapsed = time.perf_counter() - start
        if elapsed > most:
            break
    return {"samples": count, "seconds": elapsed, "cpu_seconds": cpu_seconds(os.getpid()) - cpu}


if __name__ == "__main__":
    torch.set_num_threads(1)  # two workers are two threads; and a child that is forked after torch used more hangs
    serve(partial(Turn, *sys.argv[1:]))
