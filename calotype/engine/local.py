"""The local engine: one worker, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable

from calotype.encodings.job import EncodeJob, EncodeReport
from calotype.encodings.worker import Done
from calotype.progress import Show, Track, silent

__all__ = ["encode"]


def encode(job: EncodeJob, *, track: Track = silent) -> EncodeReport:
    """Encodes what is missing: texts first, then pictures, so that only one kind of model is in memory at a time.

    Whatever ends it (an error, Ctrl-C, a kill), the batches that were written stay, and the next run goes on from
    there.

    Raises:
        ConfigError: Something is drawn without end and nothing says how many variants stand for it; or the model can't
            be loaded.
        StoreError: The store can't be written, or its disk is too small.
    """
    start = time.perf_counter()
    addresses, work = job.plan(track)
    done = Done()
    if work.texts or work.pictures:
        job.check_room(work)
        with job.worker() as worker:
            with track("encoding captions", unit="captions") as show:
                done.add(worker.texts(work.texts, progress=_counter(show, len(work.texts))))
            with track("encoding pictures") as show:
                done.add(worker.pictures(work.pictures, progress=_counter(show, len(work.pictures))))
    return job.report(addresses, work, done, time.perf_counter() - start)


def _counter(show: Show, total: int) -> Callable[[int], None]:
    done = 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        show(done, total)

    return more
