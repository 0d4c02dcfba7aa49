"""`caption_locally`: a captioning job on this machine; and what every engine does at the end of one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from calotype.captioning.backend import CaptionBackend
from calotype.captioning.job import CaptionJob, Run
from calotype.captioning.ledger import CaptionLedger
from calotype.captioning.pipeline import CaptionPipeline
from calotype.captioning.prompts import BackendIdentity
from calotype.captioning.report import CaptionReport
from calotype.progress import Track, silent

__all__ = ["caption_locally", "dry_run_job", "under_way"]


class _StoppedError(Exception):
    """Someone asked for the end of the run."""


def caption_locally(
    job: CaptionJob, backend: CaptionBackend, *, track: Track = silent, stop: threading.Event | None = None
) -> CaptionReport:
    """Captions what is missing.

    Whatever ends it (an error, Ctrl-C, a kill), the answers that were given stay in the ledger, and the next run goes
    on from there; all but a kill write them to the data first.

    Args:
        job: What to caption.
        backend: Who is asked.
        track: Shows the progress.
        stop: Ends the run early when it is set.

    Raises:
        ConfigError: A preset uses a variable that nothing gives a value for.
        CaptionError: As the backend.
        EditError: The captions or the ledger can't be written.
    """
    ledger = CaptionLedger(job.root)
    run = job.plan(BackendIdentity.of(backend, job.pixels), ledger, track=track)
    worker = CaptionPipeline(backend, job.reader, ledger, pixels=job.pixels, retry_failed=job.retry_failed)
    with under_way(run, track, stop) as wait:
        worker.run(run.tasks, run.take, wait=wait)
    return run.report()


@contextmanager
def under_way(run: Run, track: Track, stop: threading.Event | None) -> Iterator[Callable[[], None]]:
    """Gives a function to call while the answers of a run come in; at the end, whatever it is, writes them."""
    with track("captioning", unit="captions") as show:

        def wait() -> None:
            show(run.done, run.total)
            run.write_now_and_then()
            if stop is not None and stop.is_set():
                raise _StoppedError

        try:
            yield wait
            show(run.done, run.total)
        except _StoppedError:
            pass
        finally:
            try:
                run.write(unfinished=True)
                if run.job.sidecars:
                    run.write_sidecars()
            finally:
                run.ledger.close()


def dry_run_job(job: CaptionJob, backend: CaptionBackend, count: int) -> CaptionReport:
    """Captions the first images that lack captions, and writes nothing, not even to the ledger."""
    ledger = CaptionLedger(job.root)
    run = job.plan(BackendIdentity.of(backend, job.pixels), ledger)
    run.tasks = run.tasks[:count]
    worker = CaptionPipeline(backend, job.reader, ledger, pixels=job.pixels, retry_failed=job.retry_failed, keep=False)
    worker.run(run.tasks, run.take)
    return run.report(examples=list(run.examples()))
