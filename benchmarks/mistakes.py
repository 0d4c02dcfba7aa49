"""How long does the command line take to answer a slip?

python benchmarks/mistakes.py [--rounds N]

Each slip of `tests/first_mile/mistake_table.py` that is found before anything heavy is imported, in a process of its
own as a shell starts it: the median of wall-clock and CPU seconds. Beside them: a process that does nothing, `calotype
--help`, and a process that imports torch, which is what a slip took at least while it was found after that import.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "first_mile"))
import mistake_table

PYTHON = [sys.executable]
BESIDE = {
    "python -c pass": [*PYTHON, "-c", "pass"],
    "calotype --help": [*PYTHON, "-m", "calotype", "--help"],
    "python -c 'import torch'": [*PYTHON, "-c", "import torch"],
}


def seconds(line: list[str], folder: Path) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    lines = BESIDE | {line: [*PYTHON, "-m", "calotype", *shlex.split(line)] for line in mistake_table.AT_ONCE}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        mistake_table.write_mistakes(folder)
        for _ in range(rounds):
            for name, line in lines.items():
                found[name].append(seconds(line, folder))
    print(f"{'seconds':>8} {'of CPU':>7}")
    for name, times in found.items():
        wall, cpu = (statistics.median(one) for one in zip(*times, strict=True))
        print(f"{wall:8.2f} {cpu:7.2f}  {name if name in BESIDE else f'calotype {name}'}")
    slips = [statistics.median(wall for wall, _ in found[name]) for name in mistake_table.AT_ONCE]
    print(f"{len(slips)} slips: median {statistics.median(slips):.2f} s, slowest {max(slips):.2f} s")


if __name__ == "__main__":
    main()
