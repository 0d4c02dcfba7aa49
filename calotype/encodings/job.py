"""`EncodeJob`: which records a dataset needs, what encoding them takes, and the report of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from calotype.data.dataset import TextToImageDataset
from calotype.encodings.dataset_records import DatasetRecords, Fingerprints, Variants
from calotype.encodings.estimate import Estimate, check_room, estimate, free_bytes
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
    """Encodes what a dataset needs with a model's frozen parts.

    Plain data and functions: an engine calls `plan` once, `worker` on each machine, and gives the workers chunks.
    """

    dataset: TextToImageDataset
    models: FrozenModels
    store: EncodingStore
    variants: Variants = field(default_factory=Variants)
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    batch_size: int | None = None

    def plan(self, track: Track = silent) -> tuple[DatasetRecords, MissingRecords]:
        """Hash the image files whose hashes are not cached, and find the missing records.

        Raises:
            ConfigError: Something is drawn without end and nothing says how many variants stand for it.
        """
        fingerprints = Fingerprints(self.models.picture_fingerprint, self.models.text_fingerprint)
        with track("reading files") as show:
            records = DatasetRecords(self.dataset, fingerprints, self.variants, threads=self.threads, progress=show)
        with track("looking for what is encoded already") as show:
            return records, find_missing(records, self.store, progress=show)

    def expect(self, work: MissingRecords) -> Estimate:
        """Return the size and time of the missing records."""
        return estimate(work, self.models)

    def check_room(self, work: MissingRecords) -> None:
        """Check that the disk has the space for the missing records.

        Raises:
            StoreError: The disk has not that much free.
        """
        check_room(work, self.models, self.store.path, free=free_bytes(self.store.path))

    def worker(self) -> EncodeWorker:
        """A worker for this machine, with shards of its own."""
        return EncodeWorker(self.dataset, self.models, self.store, threads=self.threads, batch_size=self.batch_size)

    def run(self, encoder: Callable[[], AbstractContextManager[Encoder]], track: Track) -> EncodeReport:
        """Encode what is missing: texts first, then images, so that one kind of model is in memory at a time.

        Args:
            encoder: Makes what encodes, if anything is missing; leaving its context finishes what it writes.
            track: Shows the progress.

        Raises:
            ConfigError: The dataset has augmentations that can't be enumerated and no number of variants is set; or
                the model can't be loaded.
            StoreError: The store can't be written, or its disk is too small.
        """
        start = time.perf_counter()
        records, missing = self.plan(track)
        done = Done()
        if missing.texts or missing.images:
            self.check_room(missing)
            with encoder() as encode:
                with track("encoding captions", unit="captions") as show:
                    done.add(encode.texts(missing.texts, progress=show))
                with track("encoding images") as show:
                    done.add(encode.images(missing.images, progress=show))
        return self.report(records, missing, done, time.perf_counter() - start)

    def report(self, records: DatasetRecords, work: MissingRecords, done: Done, seconds: float) -> EncodeReport:
        """Return the report."""
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
        """Return the items that an earlier job marked as not finite."""
        ids = self.dataset.manifest
        rows = self.store.find([not_finite_key(one.key) for one in work.marked]).tolist()
        return [
            LedgerEntry(kind=MARK, id=ids[one.index].id, reason=reason_of(self.store.get(row)))
            for one, row in zip(work.marked, rows, strict=True)
        ]
