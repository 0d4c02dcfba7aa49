"""The local engine: one worker, in this process."""

from __future__ import annotations

from calotype.encodings.engine import run
from calotype.encodings.job import EncodeJob
from calotype.encodings.report import EncodeReport
from calotype.progress import Track, silent

__all__ = ["encode"]


def encode(job: EncodeJob, *, track: Track = silent) -> EncodeReport:
    """Encodes what is missing.

    Whatever ends it (an error, Ctrl-C, a kill), the batches that were written stay, and the next run goes on from
    there.

    Raises:
        ConfigError: Something is drawn without end and nothing says how many variants stand for it; or the model can't
            be loaded.
        StoreError: The store can't be written, or its disk is too small.
    """
    return run(job, job.worker, track)
