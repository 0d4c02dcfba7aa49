"""How fast are images fetched from a server that answers after 50 ms: headers, whole images, batches, a conversion?

    python benchmarks/urls.py [--images 3000] [--against CHECKOUT] [--peer PYTHON]

`--against` names another checkout of this repository to compare with; `--peer` the Python of an environment with
aiohttp (a bare loop over the same 32 connections that discards what it gets) and, if it has it, img2dataset. The server
is a process of its own, which answers 2,000 requests a second and more; each contestant is one as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve()
SERVER = HERE.with_name("_slow_server.py")
WORK = ("headers", "contents", "check", "loader", "convert")
ROUNDS = 3

PEER = """
import asyncio, json, sys, time, aiohttp
base, count, header = sys.argv[1], int(sys.argv[2]), {"Range": "bytes=0-16383"} if sys.argv[3] == "headers" else {}
async def main():
    numbers = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32)) as session:
        async def worker():
            for number in numbers:
                async with session.get(f"{base}/{number}", headers=header) as response:
                    assert len(await response.read()) > 9000
        await asyncio.gather(*(worker() for _ in range(32)))
start, cpu = time.perf_counter(), time.process_time()
asyncio.run(main())
print(json.dumps([count / (time.perf_counter() - start), (time.process_time() - cpu) / count * 1000]))
"""
IMG2DATASET = """
import json, resource, sys, time
from img2dataset import download
base, count, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with open(f"{folder}/urls.txt", "w") as file:
    file.writelines(f"{base}/{number}\\n" for number in range(count))
if __name__ == "__main__":
    start = time.perf_counter()
    download(url_list=f"{folder}/urls.txt", output_folder=f"{folder}/out", processes_count=1, thread_count=32,
             resize_mode="no", disable_all_reencoding=True, output_format="webdataset", enable_wandb=False)
    seconds = time.perf_counter() - start
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps([count / seconds, sum(one.ru_utime + one.ru_stime for one in used) / count * 1000]))
"""


@contextlib.contextmanager
def server(folder: Path, delay: float) -> Iterator[str]:
    import numpy as np
    from PIL import Image

    for number in range(16):
        soft = np.random.default_rng(number).integers(0, 255, (40, 48, 3), np.uint8)
        image = Image.fromarray(soft).resize((384, 320), Image.Resampling.BICUBIC)
        image.save(folder / f"{number}.jpg", quality=90)
    command = [sys.executable, str(SERVER), *map(str, sorted(folder.glob("*.jpg"))), "--delay", str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


def work(what: str, base: str, count: int) -> None:
    """Do one kind of work with the calotype of this process, and print (per second, ms of CPU each)."""
    import calotype
    from calotype.images import Fetcher, ImageReader, scan_contents, scan_sizes
    from calotype.types import ImageRef

    urls = [f"{base}/{number}" for number in range(count)]
    reader = ImageReader(fetcher=Fetcher(allow_private=True))
    refs = [ImageRef(name=url, url=url) for url in urls]
    rows = Path("rows.jsonl")
    size = {"width": 384, "height": 320}
    rows.write_text("".join(json.dumps({"url": url, "caption": "a", **size}) + "\n" for url in urls))
    done = 0
    if what == "loader":
        dataset = calotype.text_to_image_dataset(path=rows, resolution=256, fetch={"allow_private": True})
        batches = iter(calotype.Loader(dataset, 8))
        next(batches)  # the loader process has started
    start, cpu = time.perf_counter(), time.process_time()
    match what:
        case "headers":
            sizes, errors = scan_sizes(refs, reader)
            done = len(sizes) - len(errors)
        case "contents":
            done = sum(not isinstance(content, Exception) for content in scan_contents(refs, reader))
        case "check":
            from calotype.check.facts import scan_facts

            done = len(scan_facts(refs, reader, deep=False, threads=os.cpu_count() or 1))
        case "loader":
            done = sum(len(batch["img"]) for batch in batches)
        case "convert":
            from calotype.convert import plan_conversion, run_conversion

            manifest = calotype.load_manifest(rows)
            done = run_conversion(plan_conversion(manifest, "out", to="webdataset"), reader=reader).rows
    seconds = time.perf_counter() - start
    assert done >= count - 8, done
    print(json.dumps([done / seconds, (time.process_time() - cpu) / done * 1000]))


def measure(command: list[str], root: Path | None) -> tuple[float, float]:
    """Return (per second, ms of CPU each) of a contestant; NaN if it can't do this work."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CALOTYPE_CACHE": f"{folder}/cache", "PYTHONPATH": str(root or "")}
        command = [part.replace("FOLDER", folder) for part in command]
        result = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        print(result.stderr[-300:], file=sys.stderr)
        return math.nan, math.nan
    rate, cpu = json.loads(result.stdout.strip().splitlines()[-1])
    return rate, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--delay", type=float, default=0.05, help="Seconds before each answer.")
    parser.add_argument("--against", type=Path)
    parser.add_argument("--peer")
    parser.add_argument("--only", nargs="+", default=WORK, choices=WORK)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], options.work[1], options.images)
        return
    contestants: dict[tuple[str, str], tuple[list[str], Path | None, int]] = {}
    with tempfile.TemporaryDirectory() as folder, server(Path(folder), options.delay) as base:
        length = (Path(folder) / "0.jpg").stat().st_size
        for what in options.only:
            ours = [sys.executable, str(HERE), "--work", what, base, "--images"]
            contestants[what, "calotype"] = ([*ours, str(options.images)], HERE.parents[1], options.images)
            if options.against is not None:
                few = max(options.images // 5, 100)
                contestants[what, str(options.against)] = ([*ours, str(few)], options.against, few)
        for what in {"headers", "contents"} & set(options.only) if options.peer else ():
            loop = [options.peer, "-c", PEER, base, str(options.images), what]
            contestants[what, "aiohttp, bare"] = (loop, None, options.images)
        if (
            options.peer
            and not subprocess.run([options.peer, "-c", "import img2dataset"], capture_output=True).returncode
        ):
            tool = [options.peer, "-c", IMG2DATASET, base, str(options.images), "FOLDER"]
            contestants["convert", "img2dataset"] = (tool, None, options.images)
        rates: dict[tuple[str, str], list[tuple[float, float]]] = {name: [] for name in contestants}
        for _ in range(ROUNDS):
            for name, (command, root, _) in contestants.items():
                rates[name].append(measure(command, root))
    print(f"JPEGs of 384 x 320 px ({length / 1000:.0f} kB), each answer after {options.delay * 1000:.0f} ms,", end=" ")
    print(f"{os.cpu_count()} cores; median of {ROUNDS}")
    print(f"{'':10} {'':24} {'per second':>10} {'ms of CPU':>10}")
    for (what, who), values in sorted(rates.items(), key=lambda row: WORK.index(row[0][0])):
        rate, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{what:10} {who[-24:]:24} {rate:10,.0f} {cpu:10.2f}", flush=True)


if __name__ == "__main__":
    main()
