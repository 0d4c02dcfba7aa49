"""How fast do stored encodings become batches, and what does storing them cost, compared with other formats?

    python benchmarks/encoded.py --dir DIR                # 1,024 samples: 60 GB of disk, about half an hour
    python benchmarks/encoded.py --samples 128 --only limit calotype pt
    python benchmarks/encoded.py --json out.json --markdown

Samples of FLUX.1 at 1024²: moments 32×128×128, T5 512×4096, pooled 768, in bfloat16: 5.24 MB. Each row stores the same
samples in its own format, and passes them to the training loop in shuffled batches on the CPU, with two workers. First
one epoch verifies that each sample comes exactly once, bit for bit. Then the rows take turns, each turn in a new
process; only its own files can be in the page cache. *Warm*: its files are read once before, and the epochs from the
second on are timed; the first, in which some rows check or index what they read, has a separate column. *Cold*: its
files are not in the page cache either; the first epoch is timed. Writing: CPU time of the process tree, including
system time. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _process import ContestantError, Process, installed, machine, say
from _report import print_table, print_text
from encoded_peers import CONTESTANTS, SAMPLE_BYTES, Contestant, Job

HERE = Path(__file__).parent
MOST_SECONDS = 20.0
"""A turn of the slowest ends after so long."""

AIMS = {"pt": 5.0, "safetensors": 4.0, "npz": 10.0, "litdata": 2.0, "mds": 4.0, "limit": 0.9}
"""Samples per second of the Loader, × each; issue 4 of the project set them."""
WRITE_AIM = 3.0
"""CPU time of `.pt`, × the store's."""

READ_COLUMNS = ("contestant", "samples/s", "GB/s", "calotype ×", "from – to", "CPU ms/sample", "first epoch /s")
WRITE_COLUMNS = ("contestant", "CPU ms/sample", "× calotype", "from – to", "MB/sample")


class Bench:
    """Folders and turns.

    Args:
        root: Where everything is written.
        options: Of the command.
    """

    def __init__(self, root: Path, options: argparse.Namespace) -> None:
        self._root, self._options = root, options

    def keep(self, one: Contestant) -> None:
        """Has it keep all samples and show them, unless it did in a run before."""
        job = self._job(one.reads or one.name)
        shown = job.folder / f"shown {one.name} {job.samples}"
        if shown.exists():
            return
        if one.reads is None:
            shutil.rmtree(job.folder, ignore_errors=True)
            job.folder.mkdir()
            self._ask(one, job, f"write 0 {job.samples}")
        self._ask(one, job, "check")
        shown.touch()

    def size(self, one: Contestant) -> float:
        """Megabytes on disk, a sample."""
        return sum(path.stat().st_size for path in _files(self._job(one.name).folder)) / self._options.samples / 1e6

    def write_some(self, one: Contestant) -> float:
        """CPU milliseconds a sample, of samples that are in memory."""
        count = self._options.write_samples
        job = self._job("written", samples=count)
        job.folder.mkdir()
        try:
            return 1e3 * self._ask(one, job, f"write 0 {count}")["cpu_seconds"] / count
        finally:
            shutil.rmtree(job.folder)

    def run(self, one: Contestant, *, warm: bool) -> dict[str, Any]:
        job = self._job(one.reads or one.name)
        for path in _files(self._root):
            _forget(path)
        if warm:
            for path in _files(job.folder):
                _read_through(path)
        return self._ask(one, job, f"later {self._options.seconds} {MOST_SECONDS}" if warm else f"first {MOST_SECONDS}")

    def _ask(self, one: Contestant, job: Job, command: str) -> dict[str, Any]:
        process = Process(HERE / "_encoded_contestant.py", one.name, _as_text(job), log=self._root / "said.log")
        try:
            process.answer()
            return process.ask(command)
        finally:
            process.close()

    def _job(self, folder: str, *, samples: int | None = None) -> Job:
        options = self._options
        return Job(
            folder=self._root / folder,
            samples=samples or options.samples,
            batch_size=options.batch_size,
            workers=options.workers,
        )


def measure(root: Path, chosen: list[Contestant], options: argparse.Namespace) -> Iterator[dict[str, dict[str, Any]]]:
    """All there is after each turn, by contestant; `missing` says why one did not run."""
    bench = Bench(root, options)
    results: dict[str, dict[str, Any]] = {one.name: {} for one in chosen}
    running: list[Contestant] = []
    for one in chosen:
        if one.needs is not None and not installed(one.needs):
            results[one.name] = {"missing": f"{one.needs} is not installed"}
            continue
        try:
            say(f"{one.name}: keeps {options.samples} samples, and shows them")
            bench.keep(one)
        except ContestantError as error:
            results[one.name] = {"missing": str(error)}
            continue
        if one.reads is None:
            results[one.name]["mb"] = bench.size(one)
        running.append(one)
    os.sync()
    for one, number in _turns(running, options.rounds):
        say(f"warm, round {number}: {one.name}")
        _note(results[one.name], "warm", bench.run(one, warm=True))
        yield results
    for one, number in _turns(running, options.cold_rounds):
        say(f"cold, round {number}: {one.name}")
        _note(results[one.name], "cold", bench.run(one, warm=False))
        yield results
    for one, number in _turns([one for one in running if one.reads is None], options.write_rounds):
        say(f"writing, round {number}: {one.name}")
        results[one.name].setdefault("write_cpu_ms", []).append(bench.write_some(one))
        yield results


def _turns(running: list[Contestant], rounds: int) -> Iterator[tuple[Contestant, int]]:
    """Everybody in turn, round by round, in an order that shifts."""
    for number in range(rounds):
        shift = number % max(1, len(running))
        for one in running[shift:] + running[:shift]:
            yield one, number + 1


def _note(result: dict[str, Any], state: str, ran: dict[str, Any]) -> None:
    result.setdefault(f"{state}_rates", []).append(ran["samples"] / ran["seconds"])
    if "first_rate" in ran:
        result.setdefault("first_rates", []).append(ran["first_rate"])
    result.setdefault(f"{state}_cpu_ms", []).append(1e3 * ran["cpu_seconds"] / ran["samples"])


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _forget(path: Path) -> None:
    """Out of the page cache."""
    with _opened(path) as fd:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _read_through(path: Path) -> None:
    """Into the page cache."""
    with _opened(path) as fd:
        buffer = bytearray(8 << 20)
        while os.readv(fd, [buffer]):
            pass


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _as_text(job: Job) -> str:
    return json.dumps(asdict(job), default=str)


def show(results: dict[str, dict[str, Any]], facts: dict[str, Any], *, markdown: bool) -> None:
    print_text(
        f"{facts['machine']}; {facts['samples']:,} samples of {SAMPLE_BYTES / 1e6:.2f} MB, batches of "
        f"{facts['batch_size']}, {facts['workers']} workers; medians of interleaved rounds (warm {facts['rounds']}, "
        f"cold {facts['cold_rounds']}, writing {facts['write_rounds']} of {facts['write_samples']} samples).",
        markdown=markdown,
    )
    rows = {one.name: one for one in CONTESTANTS if one.name in results}
    verdicts = []
    for state in ("warm", "cold"):
        if any(f"{state}_rates" in result for result in results.values()):
            lines = [_read_row(one, results, state) for one in rows.values()]
            print_table(f"Reading, {state} page cache", READ_COLUMNS, lines, markdown=markdown)
            for name, aim in AIMS.items():
                if ratios := _ratios(results, name, f"{state}_rates"):
                    verdicts.append(_verdict(f"≥ {aim}× {rows[name].label}, {state}", statistics.median(ratios), aim))
    if any("write_cpu_ms" in result for result in results.values()):
        lines = [_write_row(one, results) for one in rows.values() if one.reads is None]
        print_table("Writing", WRITE_COLUMNS, lines, markdown=markdown)
        if ratios := _ratios(results, "pt", "write_cpu_ms"):
            ratio = 1 / statistics.median(ratios)
            verdicts.append(_verdict(f"writing: .pt takes ≥ {WRITE_AIM}× the CPU time", ratio, WRITE_AIM))
    print_table("Aims", ("aim", "measured", "reached"), verdicts, markdown=markdown)


def _ratios(results: dict[str, dict[str, Any]], other: str, what: str) -> list[float]:
    """calotype's figures over another's, round by round."""
    ours, theirs = (results.get(name, {}).get(what, []) for name in ("calotype", other))
    return [mine / its for mine, its in zip(ours, theirs, strict=False)]


def _read_row(one: Contestant, results: dict[str, dict[str, Any]], state: str) -> tuple[str, ...]:
    result = results[one.name]
    if "missing" in result:
        return (f"{one.label} (not run: {result['missing']})", *[""] * (len(READ_COLUMNS) - 1))
    rate, ratios = statistics.median(result[f"{state}_rates"]), _ratios(results, one.name, f"{state}_rates")
    return (
        one.label,
        _rate(rate),
        f"{rate * SAMPLE_BYTES / 1e9:.2f}",
        f"{statistics.median(ratios):.2f}" if ratios else "",
        f"{min(ratios):.2f} – {max(ratios):.2f}" if ratios else "",
        f"{statistics.median(result[f'{state}_cpu_ms']):.2f}",
        _rate(statistics.median(result["first_rates"])) if state == "warm" else "",
    )


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"


def _write_row(one: Contestant, results: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    result = results[one.name]
    if "missing" in result:
        return (f"{one.label} (not run: {result['missing']})", *[""] * (len(WRITE_COLUMNS) - 1))
    ratios = [1 / ratio for ratio in _ratios(results, one.name, "write_cpu_ms")]
    return (
        one.label,
        f"{statistics.median(result['write_cpu_ms']):.2f}",
        f"{statistics.median(ratios):.2f}" if ratios else "",
        f"{min(ratios):.2f} – {max(ratios):.2f}" if ratios else "",
        f"{result['mb']:.2f}",
    )


def _verdict(aim: str, value: float, least: float) -> tuple[str, str, str]:
    return aim, f"{value:.2f}", "yes" if value >= least else "no"


def main() -> None:
    names = [one.name for one in CONTESTANTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dir", type=Path, help="where to keep the samples, for later runs too; else a temporary folder"
    )
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=3, help="with a warm page cache")
    parser.add_argument("--cold-rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="a warm turn lasts as many epochs as this takes, after the first"
    )
    parser.add_argument("--write-rounds", type=int, default=5)
    parser.add_argument("--write-samples", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write every figure of every round to this file")
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    options = parser.parse_args()
    chosen = [one for one in CONTESTANTS if one.name in options.only]
    chosen.sort(key=lambda one: one.reads is not None)  # whoever reads another's files comes after it
    settings = ("rounds", "cold_rounds", "write_rounds", "samples", "write_samples", "workers", "batch_size")
    facts = {"machine": machine()} | {name: getattr(options, name) for name in settings}
    results: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        root = options.dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="calotype-encoded-")))
        root.mkdir(parents=True, exist_ok=True)
        for results in measure(root.resolve(), chosen, options):
            if options.json is not None:
                options.json.write_text(json.dumps(facts | {"results": results}, indent=1) + "\n")
    show(results, facts, markdown=options.markdown)


if __name__ == "__main__":
    main()
