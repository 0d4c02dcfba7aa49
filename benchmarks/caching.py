"""Which cache pays off, on datasets of 10 up to 10,000 images, on a local disk and behind a slow web server?

    python benchmarks/caching.py                                  # about two minutes per table, on two cores
    python benchmarks/caching.py --sizes 100 --web-delay 0.2 --json out.json
    python benchmarks/caching.py --model FOLDER --resolution 1024 # a real pipeline, on the GPU if there is one

It runs `calotype bench` (`bench_config`) and prints its tables as Markdown. The images are those of `_photos.py`
(1280 × 960), under new names and with extra bytes at the end, so that each file is different. The model is
the tests' tiny FLUX.1 unless `--model` names another. The web server runs on this machine and waits before each
response; the data file has the image sizes, as in large web datasets.
"""

from __future__ import annotations

import argparse
import http.server
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from _photos import SIZES, photo_sets
from _process import machine, say

from calotype.bench.report import BenchReport
from calotype.bench.run import bench_config
from calotype.bench.show import HEADS, cells
from calotype.progress import track

HERE = Path(__file__).parent
EPOCHS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10, 100, 1_000, 10_000])
    parser.add_argument("--strategies", nargs="+", help="names of those to measure; all by default")
    parser.add_argument("--web-delay", type=float, default=0.1, help="seconds before each answer")
    parser.add_argument("--web-sizes", type=int, nargs="*", default=[100])
    parser.add_argument("--model", help="a pipeline's folder")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--photos", type=Path, help="a folder of photographs instead of Debian's")
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache" / "benchmarks")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    model = arguments.model
    if model is None:
        sys.path.append(str(HERE.parent / "tests"))
        from tiny_pipelines import tiny_pipeline

        model = str(tiny_pipeline("flux.1-dev"))
    (photos,) = photo_sets(arguments.cache, arguments.photos, ["small"])
    reports: list[dict[str, Any]] = []
    say(machine())
    cases = [(count, False) for count in arguments.sizes] + [(count, True) for count in arguments.web_sizes]
    with tempfile.TemporaryDirectory(dir=arguments.cache) as folder:
        for count, web in cases:
            names = make_images(photos.files, Path(folder), count)
            with served(Path(folder), arguments.web_delay) as address:
                write_table(Path(folder), names, address if web else None)
                config = {
                    "model": model,
                    "dataset": {"path": str(Path(folder, "data.jsonl")), "resolution": arguments.resolution},
                    "encodings": {"store": str(Path(folder, "store"))},
                    "loader": {"batch_size": arguments.batch_size},
                    "train": {"max_steps": max(1, EPOCHS * count // arguments.batch_size)},
                }
                if arguments.model is None:
                    config["encodings"]["dtype"] = "float32"
                if web:
                    config["dataset"]["fetch"] = {"allow_private": True}
                report = bench_config(config, strategies=arguments.strategies, steps=arguments.steps, track=track)
            where = f"a server that waits {1000 * arguments.web_delay:.0f} ms" if web else "local disk"
            print_report(f"{count:,} images, {where}", report)
            reports.append({"where": "web" if web else "local", "pictures": count} | report.to_json())
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(reports, indent=1))


def make_images(photos: list[Path], folder: Path, count: int) -> list[str]:
    """So many files, no two alike; those that are there already stay."""
    names = [f"{number:06d}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        file = folder / name
        if not file.exists():
            file.write_bytes(photos[number % len(photos)].read_bytes() + number.to_bytes(4))
    return names


def write_table(folder: Path, names: list[str], address: str | None) -> None:
    width, height = SIZES["small"]
    rows = [
        {
            "image": name if address is None else f"{address}/{name}",
            "caption": f"photo number {number}, bright",
            "width": width,
            "height": height,
        }
        for number, name in enumerate(names)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class Slow(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, after a while."""

    delay = 0.0

    def do_GET(self) -> None:
        time.sleep(self.delay)
        with suppress(ConnectionError):  # a strategy's run has ended with images under way
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path, delay: float) -> Iterator[str]:
    handler = type("Handler", (Slow,), {"delay": delay})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def print_report(title: str, report: BenchReport) -> None:
    print(f"\n### {title}\n")
    print("| " + " | ".join(HEADS) + " |")
    print("| --- " + "| ---: " * (len(HEADS) - 1) + "|")
    for row in report.rows:
        if row.refused is None:
            print("| " + " | ".join(cells(row)) + " |")
        else:
            say(f"{row.title}: left out: {row.refused}")
    if report.recommendation is not None:
        print(f"\n`{report.recommendation.strategy}`: {report.recommendation.reason}", flush=True)


if __name__ == "__main__":
    main()
