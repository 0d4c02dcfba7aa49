"""How much a loader slows down a training loop: many small torch operations, alone and with a loader running.

    python benchmarks/interference.py                  # about three minutes on two cores
    python benchmarks/interference.py --json out.json --markdown

A step is 2,000 operations on 16 numbers, on one thread: time goes to Python and to launching, as in a training loop
that feeds a GPU. The loop and a loader of one worker share the machine, so on two cores each can have its own; the
rest is interference: the interpreter's lock, caches, memory. Only the steps are timed, not the wait for
a batch. The loop takes a batch every few steps, faster than a loader can produce one, so the loader is always busy,
as the column "busy cores" shows.

Each loader has a separate process with its loop, and they take turns: alone, with the loader, alone again. A ratio is
computed within a turn; the table gives the median of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _measure import cpu_seconds
from _photos import SIZES, photo_sets
from _process import ContestantError, Process, installed, job_as_text, job_from_text, machine, say, serve
from _report import print_table, print_text
from peers import Epoch, Job

HERE = Path(__file__).parent
OPERATIONS = 2000
STEPS_PER_BATCH = 10
ALONE_STEPS = 150
SETTLE_SECONDS = 1.0
"""For a loader that makes batches ahead to be done with them before the loop is timed alone."""

AIM = 1.05
COLUMNS = ("loader", "× as long", "from – to", "step alone, ms", "step with loader, ms", "busy cores")


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """A loader to have beside the loop."""

    name: str
    label: str
    module: str
    needs: str = "torch"
    options: tuple[tuple[str, Any], ...] = ()


COMPANY = (
    Company(name="calotype", label="calotype Loader (its own process)", module="calotype_loader"),
    Company(
        name="calotype-in-process",
        label="calotype Loader, in_process=True",
        module="calotype_loader",
        options=(("in_process", True),),
    ),
    Company(name="sketch", label="RFC's sketch, DataLoader with a worker process", module="sketch"),
    Company(name="torchvision", label="torchvision, DataLoader with a worker process", module="torchvision_io"),
    Company(name="nodes", label="torchdata.nodes, a thread", module="torchdata_nodes", needs="torchdata"),
    Company(name="spdl", label="SPDL, a thread", module="spdl_threads", needs="spdl.io"),
)


def steps(count: int) -> float:
    """Seconds for so many steps of the loop."""
    values = torch.linspace(-1, 1, 16)
    start = time.perf_counter()
    for _ in range(count * OPERATIONS // 4):
        values = values * 1.0001
        values = values + 0.0001
        values = torch.relu(values)
        values = torch.clamp(values, -1, 1)
    return time.perf_counter() - start


def turn(epoch: Epoch, seconds: float) -> dict[str, float]:
    """The loop alone, then with the loader at work, then alone again."""
    alone = steps(ALONE_STEPS)
    beside = wall = others = 0.0
    taken = 0
    while beside < seconds:
        batches = epoch()
        next(batches)  # the loader has begun
        start, cpu, mine = time.perf_counter(), cpu_seconds(os.getpid()), time.thread_time()
        for _ in batches:
            beside += steps(STEPS_PER_BATCH)
            taken += 1
        wall += time.perf_counter() - start
        others += cpu_seconds(os.getpid()) - cpu - (time.thread_time() - mine)
    time.sleep(SETTLE_SECONDS)
    alone += steps(ALONE_STEPS)
    return {
        "alone_ms": 1e3 * alone / (2 * ALONE_STEPS),
        "beside_ms": 1e3 * beside / (taken * STEPS_PER_BATCH),
        "cores": others / wall,
    }


def open_company(name: str, job: str) -> Callable[..., dict[str, Any]]:
    """What the child does: each line it gets asks for a turn of so many seconds beside the loader."""
    torch.set_num_threads(1)
    company = next(c for c in COMPANY if c.name == name)
    epoch = importlib.import_module(f"peers.{company.module}").open_loader(job_from_text(job), **dict(company.options))
    came = 0
    for _ in epoch():  # start-up and the page cache
        steps(1)
        came += 1
    if not came:
        raise ValueError("an epoch of it has no batches")  # SPDL leaves out what it can't decode: is FFmpeg installed?
    time.sleep(SETTLE_SECONDS)
    return lambda seconds: turn(epoch, float(seconds))


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """By company: the turns of all rounds, or `missing`, the reason why there are none."""
    (photos,) = photo_sets(options.cache, options.photos, [options.set])
    results: dict[str, dict[str, Any]] = {}
    processes: dict[str, Process] = {}
    with tempfile.TemporaryDirectory(prefix="calotype-interference-") as folder, contextlib.ExitStack() as stack:
        for company in COMPANY:
            if not installed(company.needs):
                results[company.name] = {"missing": f"{company.needs} is not installed"}
                continue
            say(f"{company.name}: starting")
            scratch = Path(folder) / company.name
            scratch.mkdir()
            job = Job(
                folder=photos.folder.resolve(),
                shards=photos.shards.resolve(),
                size=options.size,
                batch_size=options.batch_size,
                workers=1,
                scratch=scratch,
            )
            process = Process(Path(__file__), "--company", company.name, job_as_text(job), log=scratch / "said.log")
            stack.callback(process.close)
            try:
                process.answer()
            except ContestantError as error:
                results[company.name] = {"missing": str(error)}
                continue
            processes[company.name] = process
            results[company.name] = {"turns": []}
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            for name, process in processes.items():
                results[name]["turns"].append(process.ask(str(options.seconds)))
    return results


def show(results: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    print_text(
        f"{machine()}; {options.set} photos to {options.size} px, batches of {options.batch_size}, one worker; "
        f"medians of {options.rounds} rounds. The target for calotype's Loader is at most {AIM} times as long.",
        markdown=options.markdown,
    )
    print_table("Interference", COLUMNS, [_row(c, results[c.name]) for c in COMPANY], markdown=options.markdown)


def _row(company: Company, result: dict[str, Any]) -> tuple[str, ...]:
    if "turns" not in result:
        return (f"{company.label} (not run: {result['missing']})", *[""] * (len(COLUMNS) - 1))
    ratios = [turn["beside_ms"] / turn["alone_ms"] for turn in result["turns"]]
    alone, beside, cores = (statistics.median(t[key] for t in result["turns"]) for key in _FIGURES)
    return (
        company.label,
        f"{statistics.median(ratios):.3f}",
        f"{min(ratios):.3f} – {max(ratios):.3f}",
        f"{alone:.2f}",
        f"{beside:.2f}",
        f"{cores:.2f}",
    )


_FIGURES = ("alone_ms", "beside_ms", "cores")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of photographs to cut the set from (default: downloaded)")
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache/benchmarks", help="where the set is kept")
    parser.add_argument("--set", choices=list(SIZES), default="large")
    parser.add_argument("--size", type=int, default=1024, help="side of the square, in pixels")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of steps beside the loader, in each turn")
    parser.add_argument("--json", type=Path, help="write every figure of every round to this file")
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown")
    options = parser.parse_args()
    results = measure(options)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")
    show(results, options)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--company"]:
        serve(lambda: open_company(*sys.argv[2:]))
    else:
        main()
