"""What does writing and reading a store cost, compared with one file per sample and with bare system calls?

python benchmarks/store_write_read.py [--megabytes 512] [--rounds 7] [--dir DIR]

Records of FLUX.1 at 1024²: an image's moments, bf16 (32, 128, 128), 1.05 MB; a text's embeddings, bf16 (512, 4096),
4.19 MB. Written: CPU time of the process, user and system; the store's shards are flushed to disk within it, the single
files are left in the page cache, as is usual. Read: warm, in random order, by two threads into reused memory; the limit
is the same two threads with only `os.preadv`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from calotype.encodings.store import EncodingStore

SHAPES = {"moments": (32, 128, 128), "prompt_embeds": (512, 4096)}
BATCH = 8
THREADS = 2


def timed(cpu: bool, work: Callable[[], None]) -> float:
    clock = time.process_time if cpu else time.perf_counter
    start = clock()
    work()
    return clock() - start


def write_ways(folder: Path, field: str, keys: np.ndarray, batch: torch.Tensor) -> dict[str, Callable[[], None]]:
    def store() -> None:
        with EncodingStore(folder / "store", create=True).writer() as writer:
            for start in range(0, len(keys), BATCH):
                writer.put(keys[start : start + BATCH], {field: batch}, kind="picture")

    singles = [record.clone() for record in batch]  # not the views: torch.save would write the whole batch each time

    def pt() -> None:
        for number in range(len(keys)):
            torch.save({field: singles[number % BATCH]}, folder / f"{number}.pt")

    def safetensors() -> None:
        for number in range(len(keys)):
            save_file({field: singles[number % BATCH]}, folder / f"{number}.safetensors")

    return {"store": store, ".pt a sample": pt, "safetensors a sample": safetensors}


def writing(root: Path, field: str, count: int, rounds: int) -> None:
    batch = torch.randn(BATCH, *SHAPES[field]).bfloat16()
    keys = np.random.default_rng(0).integers(0, 256, (count, 16), dtype=np.uint8)
    seconds: dict[str, list[float]] = {}
    for round in range(rounds):
        names = list(write_ways(root, field, keys, batch))
        for name in names[round % 3 :] + names[: round % 3]:
            folder = root / "written"
            folder.mkdir()
            seconds.setdefault(name, []).append(timed(True, write_ways(folder, field, keys, batch)[name]))
            shutil.rmtree(folder)
    report(f"writing {field}, {batch[0].nbytes / 1e6:.2f} MB, CPU time", seconds, count, against="store")


def threaded(count: int, order: np.ndarray, read: Callable[[int, int], None]) -> Callable[[], None]:
    """Two threads that take the numbers in turn: `read(thread, number)`."""

    def work() -> None:
        def run(thread: int) -> None:
            for number in order[thread::THREADS].tolist():
                read(thread, number)

        threads = [threading.Thread(target=run, args=(thread,)) for thread in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return work


def reading(root: Path, field: str, count: int, rounds: int) -> None:
    folder = root / "read"
    folder.mkdir()
    batch = torch.randn(BATCH, *SHAPES[field]).bfloat16()
    keys = np.random.default_rng(0).integers(0, 256, (count, 16), dtype=np.uint8)
    for write in write_ways(folder, field, keys, batch).values():
        write()
    slots = torch.empty(THREADS, BATCH, *SHAPES[field], dtype=torch.bfloat16)
    once = EncodingStore(folder / "store")
    always = EncodingStore(folder / "store", verify="always")
    rows = once.find(keys).tolist()
    locations = [once.locate(row, field) for row in rows]
    memory = [[slots[t, n].reshape(-1).view(torch.uint8).numpy() for n in range(BATCH)] for t in range(THREADS)]

    def bare(thread: int, number: int) -> None:
        location = locations[number]
        os.preadv(location.file.fd, [memory[thread][number % BATCH]], location.offset)

    def store(thread: int, number: int) -> None:
        once.read_into(rows[number], field, slots[thread, number % BATCH])

    def verified(thread: int, number: int) -> None:
        always.read_into(rows[number], field, slots[thread, number % BATCH])

    def pt(thread: int, number: int) -> None:
        slots[thread, number % BATCH].copy_(torch.load(folder / f"{number}.pt")[field])

    def safetensors(thread: int, number: int) -> None:
        slots[thread, number % BATCH].copy_(load_file(folder / f"{number}.safetensors")[field])

    ways = {
        "bare preadv": bare,
        "store": store,
        "store, verify=always": verified,
        ".pt a sample": pt,
        "safetensors a sample": safetensors,
    }
    seconds: dict[str, list[float]] = {}
    names = list(ways)
    rng = np.random.default_rng(1)
    for round in range(rounds + 1):
        order = rng.permutation(count)
        shift = round % len(names)
        for name in names[shift:] + names[:shift]:
            spent = timed(False, threaded(count, order, ways[name]))
            if round:  # the first warms the page cache, and holds the checksums
                seconds.setdefault(name, []).append(spent)
    shutil.rmtree(folder)
    report(f"reading {field}, {batch[0].nbytes / 1e6:.2f} MB, warm, two threads", seconds, count, against="bare preadv")


def report(title: str, seconds: dict[str, list[float]], count: int, *, against: str) -> None:
    """Times, and ratios taken within a round: those above 1 are slower than `against`."""
    print(f"\n{title}; {count} records, medians of {len(seconds[against])}")
    print(f"{'':24}{'ms a record':>12}{'× ' + against:>16}{'from – to':>18}")
    for name, values in seconds.items():
        ratios = [mine / theirs for mine, theirs in zip(values, seconds[against], strict=True)]
        spread = f"{min(ratios):.2f} – {max(ratios):.2f}"
        each = statistics.median(values) / count * 1e3
        print(f"{name:24}{each:12.3f}{statistics.median(ratios):16.2f}{spread:>18}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=512, help="of records, for each way of keeping them")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dir", type=Path, help="where to write; a temporary folder of the system if not given")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for field, shape in SHAPES.items():
        count = max(BATCH, int(options.megabytes * 1e6 / (2 * np.prod(shape))) // BATCH * BATCH)
        with tempfile.TemporaryDirectory(dir=options.dir) as folder:
            writing(Path(folder), field, count, options.rounds)
            reading(Path(folder), field, count, options.rounds)


if __name__ == "__main__":
    main()
