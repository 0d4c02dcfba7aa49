"""Peak memory and CPU time of a process tree."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """`pid` and all its living descendants."""
    found, todo = [], [pid]
    while todo:
        process = todo.pop()
        found.append(process)
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{process}/task").iterdir():
                with contextlib.suppress(OSError):
                    todo.extend(int(child) for child in (thread / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the tree, ended and reaped children included; counted in ticks of 10 ms."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            # The name may hold spaces and parentheses; fields count from behind the last one.
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
    return total / _TICK


def memory_mb(pid: int) -> float:
    """Anonymous and shared memory of the tree in MB, a page that several of its processes share counted once.

    Pages of files (the libraries' code, mapped data) are left out: the kernel may drop them, and how many of them a
    process is charged with depends on who else runs.
    """
    kilobytes = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    kilobytes += int(line.split()[1])
    return kilobytes * 1024 / 1e6


class PeakMemory:
    """Samples a tree's memory from a thread of this process until the `with` block ends; the peak is in `mb`."""

    def __init__(self, pid: int, *, every: float = 0.03) -> None:
        self.mb = 0.0
        self._pid = pid
        self._every = every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(self._every):
            self.mb = max(self.mb, memory_mb(self._pid))
