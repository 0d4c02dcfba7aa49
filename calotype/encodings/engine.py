"""What every engine does with a job: plan it, give texts and then images to whoever encodes, and report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from calotype.encodings.addresses import Picture
from calotype.encodings.job import EncodeJob
from calotype.encodings.report import EncodeReport
from calotype.encodings.work import Text
from calotype.encodings.worker import Done
from calotype.progress import Show, Track

__all__ = ["Encoder", "run"]


class Encoder(Protocol):
    """One `EncodeWorker`, or many behind one face."""

    def texts(self, texts: Sequence[Text], *, progress: Show | None = None) -> Done: ...

    def pictures(self, pictures: Sequence[Picture], *, progress: Show | None = None) -> Done: ...


def run(job: EncodeJob, encoder: Callable[[], AbstractContextManager[Encoder]], track: Track) -> EncodeReport:
    """Encodes what is missing: texts first, then images, so that only one kind of model is in memory at a time.

    Args:
        job: What to encode.
        encoder: Called where anything is missing; leaving its context finishes what it writes.
        track: Shows how far it is.

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
        with encoder() as encode:
            with track("encoding captions", unit="captions") as show:
                done.add(encode.texts(work.texts, progress=show))
            with track("encoding images") as show:
                done.add(encode.pictures(work.pictures, progress=show))
    return job.report(addresses, work, done, time.perf_counter() - start)
