"""`EncodeJob`: plans, runs and reports the encoding of a dataset."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from calotype.data.dataset import TextToImageDataset
from calotype.encodings.dataset_records import DatasetRecords, Fingerprints, Variants
from calotype.encodings.estimate import Estimate, check_room, estimate
from calotype.encodings.finite import MARK, reason_of
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.keys import not_finite_key
from calotype.encodings.missing_records import MissingRecords, find_missing
from calotype.encodings.report import EncodeReport
from calotype.encodings.store import EncodingStore
from calotype.encodings.worker import Done, Encoder, EncodeWorker
from calotype.ledger import LedgerEntry
from calotype.progress import Track, silent

__all__ = ["EncodeJob"]


@dataclass(kw_only=True)
class EncodeJob:
    """Encodes the missing records of a dataset with the frozen models.

    Has no state of a run: `run` calls `plan` once, and an engine makes a `worker` on each machine and sends it chunks.
    """

    dataset: TextToImageDataset
    models: FrozenModels
    store: EncodingStore
    variants: Variants = field(default_factory=Variants)
    """Numbers of variants of continuous augmentations."""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Threads that hash and decode image files."""
    batch_size: int | None = None
    """Images encoded at once; None chooses it by their size."""

    def plan(self, track: Track = silent) -> tuple[DatasetRecords, MissingRecords]:
        """Hash the image files whose hashes are not cached, and find the missing records.

        Raises:
            ConfigError: There is a continuous augmentation, and `variants` has no number for it.
        """
        fingerprints = Fingerprints(self.models.picture_fingerprint, self.models.text_fingerprint)
        with track("reading files") as show:
            records = DatasetRecords(self.dataset, fingerprints, self.variants, threads=self.threads, progress=show)
        with track("looking for what is encoded already") as show:
            return records, find_missing(records, self.store, progress=show)

    def expect(self, work: MissingRecords) -> Estimate:
        """Return the size and time of the missing records."""
        return estimate(work, self.models)

    def worker(self) -> EncodeWorker:
        """Return a worker for this machine, which writes its own shards."""
        return EncodeWorker(self.dataset, self.models, self.store, threads=self.threads, batch_size=self.batch_size)

    def run(self, encoder: Callable[[], AbstractContextManager[Encoder]], track: Track) -> EncodeReport:
        """Encode what is missing: texts first, then images, so that one kind of model is in memory at a time.

        Args:
            encoder: Called if records are missing; makes the encoder, whose exit completes the files it writes.
            track: Shows the progress.

        Raises:
            ConfigError: There is a continuous augmentation and `variants` has no number for it; or the model can't be
                loaded.
            StoreError: The store can't be written, or its disk has too little space.
        """
        start = time.perf_counter()
        records, missing = self.plan(track)
        done = Done()
        if missing.texts or missing.images:
            check_room(missing, self.models, self.store.path)
            with encoder() as encode:
                with track("encoding captions", unit="captions") as show:
                    done.add(encode.texts(missing.texts, progress=show))
                with track("encoding images") as show:
                    done.add(encode.images(missing.images, progress=show))
        return self.report(records, missing, done, time.perf_counter() - start)

    def report(self, records: DatasetRecords, work: MissingRecords, done: Done, seconds: float) -> EncodeReport:
        """Return the report of a run.

        Args:
            records: Result of `plan`.
            work: Result of `plan`.
            done: Result of the encoder.
            seconds: Duration of the run.
        """
        unreadable = tuple(note for note in records.notes if note.kind == "unreadable")
        failures = (*unreadable, *self._marked(work), *done.failures)
        return EncodeReport(
            encoded=done.encoded,
            reused=work.reused,
            failed=len(failures),
            bytes=done.bytes,
            seconds=seconds,
            failures=failures,
            notes=(*(note for note in records.notes if note.kind != "unreadable"), *done.notes),
        )

    def _marked(self, work: MissingRecords) -> list[LedgerEntry]:
        """Return an entry for each item that an earlier job marked as not finite."""
        ids = self.dataset.manifest
        rows = self.store.find([not_finite_key(one.key) for one in work.marked]).tolist()
        return [
            LedgerEntry(kind=MARK, id=ids[one.index].id, reason=reason_of(self.store.get(row)))
            for one, row in zip(work.marked, rows, strict=True)
        ]
