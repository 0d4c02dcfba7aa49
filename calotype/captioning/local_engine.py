"""`caption_locally`: run a captioning job in this process; and `writing`, the end of a run on every engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from calotype.captioning.backend import CaptionBackend
from calotype.captioning.job import CaptionJob
from calotype.captioning.ledger import CaptionLedger
from calotype.captioning.pipeline import CaptionPipeline
from calotype.captioning.prompts import BackendIdentity
from calotype.captioning.report import CaptionReport
from calotype.captioning.writer import CaptionWriter
from calotype.progress import Track, silent

__all__ = ["caption_locally", "dry_run_job", "writing"]


class _StoppedError(Exception):
    """The caller has set `stop`."""


def caption_locally(
    job: CaptionJob, backend: CaptionBackend, *, track: Track = silent, stop: threading.Event | None = None
) -> CaptionReport:
    """Generate the missing captions in this process.

    After any end of a run (an error, Ctrl-C, a kill) its results are in the ledger, and the next run resumes from
    there. Unless the process is killed, finished captions are also written to the dataset.

    Args:
        job: What to caption.
        backend: Generates the captions.
        track: Shows the progress.
        stop: Ends the run early when it is set.

    Raises:
        ConfigError: A preset uses a variable that has no value.
        CaptionError: See `CaptionBackend.caption`.
        EditError: The captions or the ledger can't be written.
    """
    ledger = CaptionLedger(job.root)
    writer = job.plan(BackendIdentity.of(backend, job.pixels), ledger, track=track)
    pipeline = CaptionPipeline(backend, job.reader, ledger, pixels=job.pixels, retry_failed=job.retry_failed)
    with writing(writer, track, stop) as wait:
        pipeline.run(writer.tasks, writer.add, wait=wait)
    return writer.report()


@contextmanager
def writing(writer: CaptionWriter, track: Track, stop: threading.Event | None) -> Iterator[Callable[[], None]]:
    """Yield a function to call while results come in. At the end, also after an error, write all captions."""
    with track("captioning", unit="captions") as show:

        def wait() -> None:
            show(writer.done, writer.total)
            writer.write_if_due()
            if stop is not None and stop.is_set():
                raise _StoppedError

        try:
            yield wait
            show(writer.done, writer.total)
        except _StoppedError:
            pass
        finally:
            try:
                writer.write(unfinished=True)
                if writer.job.sidecars:
                    writer.write_sidecars()
            finally:
                writer.ledger.close()


def dry_run_job(job: CaptionJob, backend: CaptionBackend, count: int) -> CaptionReport:
    """Caption the first images that lack captions, and write nothing, not even to the ledger."""
    ledger = CaptionLedger(job.root)
    writer = job.plan(BackendIdentity.of(backend, job.pixels), ledger)
    writer.tasks = writer.tasks[:count]
    pipeline = CaptionPipeline(
        backend, job.reader, ledger, pixels=job.pixels, retry_failed=job.retry_failed, keep=False
    )
    pipeline.run(writer.tasks, writer.add)
    return writer.report(examples=list(writer.examples()))
