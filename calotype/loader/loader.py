"""`Loader`: iterates over batches on the device; each `for batch in loader` is one epoch."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import torch
import xxhash

from calotype.data.sample_source import SampleSource, check_source
from calotype.errors import ConfigError, LoaderError
from calotype.ledger import Ledger, LedgerEntry
from calotype.loader.device import DeviceCopier
from calotype.loader.plan import Cursor, Plan, Remainder, Segment, check_options
from calotype.loader.process import Setup
from calotype.loader.produce import OnError
from calotype.loader.source import ProcessSource, Source, ThreadSource
from calotype.progress import track
from calotype.terminal import about, get_logger
from calotype.types import Batch, SampleKey

__all__ = ["Loader"]

logger = get_logger("calotype")
_STATE_VERSION = 1
_TELL = 5
"""Maximum number of entries of one kind that are logged; the ledger has all of them."""


class Loader:
    """Iterates over the batches of a dataset, on the device, in a seeded order; resumes from any position.

    The batches of an epoch are a pure function of (seed, epoch, image sizes, batch size, world size): with any number
    of threads, in this process or another, they are the same bit for bit. A `state_dict` taken between two batches and
    loaded into a loader of the same data continues with the next batch. With another world size or batch size it
    continues with exactly the remaining samples of the epoch.

    Breaking out of the loop ends the epoch: the next `for` is the next epoch. A `state_dict` taken after the break
    still resumes within the epoch.

    Args:
        dataset: A `TextToImageDataset`, an `EncodedDataset`, or your own `SampleSource`.
        batch_size: Samples per step and rank.
        seed: Seeds the order and every random transform. Defaults to the dataset's seed.
        device: Device of the batches. Defaults to the CPU.
        threads: Number of threads that prepare samples. Defaults to the number of cores available to this process,
            divided by the ranks on this node, at most 16.
        prefetch: Number of batches prepared ahead, 1 or more.
        in_process: Prepare samples in threads of this process instead of a loader process. For small datasets that are
            already in memory, and for platforms without Unix sockets.
        shuffle: False yields the rows in their order, bucket by bucket.
        remainder: What to do with samples of a bucket that don't fill a step: `short` (a smaller batch), `repeat`
            (repeat other samples to fill it) or `drop` (leave them out, with a ledger entry each). See `Plan`.
        on_error: What to do if an image can't be read: `replace` uses another image of the same bucket and adds a
            ledger entry; `raise` raises its ImageError.
        on_upscale: What to do with images that have to be enlarged beyond `Buckets.max_upscale`: `warn`, `skip` or
            `error`.
        device_cache: Cache the whole dataset (its encodings, or its pixels) on the device during the first epoch. For
            small datasets. Pixels need a fixed geometry (no random crop or rotation); flips and colour transforms then
            run on the device.
        rank: Rank of this process. Defaults to that of torch.distributed if it is initialised, else 0.
        world_size: Number of ranks. Defaults to that of torch.distributed if it is initialised, else 1.
        ledger: Collects an entry for each sample left out, replaced, repeated or truncated. Defaults to a new one.
            Entries that are the same on every rank are added by rank 0 only.

    Raises:
        ConfigError: An option has an invalid value, or the dataset has no batch.
    """

    def __init__(
        self,
        dataset: SampleSource,
        batch_size: int = 1,
        *,
        seed: int | None = None,
        device: str | torch.device | None = None,
        threads: int | None = None,
        prefetch: int = 2,
        in_process: bool = False,
        shuffle: bool = True,
        remainder: Remainder = "short",
        on_error: OnError = "replace",
        on_upscale: Literal["warn", "skip", "error"] = "warn",
        device_cache: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        # Check all options before images are read.
        if on_error not in ("replace", "raise"):
            raise ConfigError(f"on_error: found {on_error!r}, expected 'replace' or 'raise'")
        if on_upscale not in ("warn", "skip", "error"):
            raise ConfigError(f"on_upscale: found {on_upscale!r}, expected 'warn', 'skip' or 'error'")
        if prefetch < 1:
            raise ConfigError(f"prefetch: found {prefetch}, expected at least 1")
        if threads is not None and threads < 1:
            raise ConfigError(f"threads: found {threads}, expected at least 1")
        rank, world_size = _ranks(rank, world_size)
        check_options(batch_size, rank, world_size, remainder)
        check_source(dataset)
        if not len(dataset):
            raise ConfigError("the dataset has no samples, so there are no batches to make of it")
        self.dataset = dataset
        self.device = torch.device(device) if device is not None else torch.device("cpu")
        self.ledger = ledger if ledger is not None else Ledger()
        self._noted: set[tuple[str, str]] = set()
        """(kind, id) of the entries that were logged, or counted instead."""
        self._noted_of_kind: Counter[str] = Counter()
        """Kind → number of entries in `_noted`."""
        self._cut: set[LedgerEntry] = set()
        """Entries of truncated captions. A new loader process reports them again."""
        # Assign the samples to buckets, and plan the batches.
        buckets, notes = self._scan(on_upscale)
        if rank == 0:
            self._note(notes)
        self.plan = Plan(
            buckets=buckets,
            sizes=dataset.bucket_sizes,
            batch_size=batch_size,
            seed=seed if seed is not None else dataset.seed,
            rank=rank,
            world_size=world_size,
            remainder=remainder,
            shuffle=shuffle,
            weights=self._weights(),
        )
        # What prepares the batches: started by the first epoch.
        if device_cache:
            dataset = self.dataset = dataset.with_device_cache(self.device)
            in_process = True
        self._setup = Setup(
            dataset=dataset,
            plan=self.plan,
            threads=threads if threads is not None else _default_threads(),
            prefetch=prefetch,
            on_error=on_error,
            finish=self.device.type == "cpu" and not dataset.finishes_in_trainer,
        )
        self._in_process = in_process or sys.platform == "win32"
        self._copier = DeviceCopier(self.device)
        self._cursor = Cursor()
        self.given: Cursor | None = None
        """Position of the last batch yielded; see `keys_of`."""
        self._midway = False
        """Whether the cursor is within an epoch that a loop of this loader has started."""
        self._runs = 0
        """Number of loops started."""
        self._source: Source | None = None
        self._at: Cursor | None = None
        """Position of the source's next batch; None if it is unknown."""
        # Look at two epochs: weights below 1 can leave the first one empty.
        if not any(len(self.plan.epoch(epoch)) for epoch in range(2)):
            raise ConfigError(self._no_batches(notes))

    def __len__(self) -> int:
        """Return the number of batches of the current epoch, or between epochs of the next; the same on every rank."""
        cursor = self._cursor
        done = sum(past.steps for past in cursor.history)
        return done + len(self.plan.epoch(cursor.epoch, cursor.history))

    @property
    def epoch(self) -> int:
        """Epoch of the next batch, from 0."""
        return self._cursor.epoch

    def __iter__(self) -> Iterator[Batch]:
        notes = self.dataset.begin_epoch(
            first=self._runs == 0,
            whole=self._runs > 0 and not self._midway,
            rank=self.plan.rank,
            world_size=self.plan.world_size,
        )
        self._note(notes)
        if self._midway:  # the previous loop ended early
            self._cursor = Cursor(epoch=self._cursor.epoch + 1)
        self._runs += 1
        return self._run(self._runs)

    def _run(self, run: int) -> Iterator[Batch]:
        epoch = self.plan.epoch(self._cursor.epoch, self._cursor.history)
        if self.plan.rank == 0:
            self._note(self._named(epoch.remainders()))
        # Open the source, and move it if it is not at the cursor.
        source = self._open()
        if self._at != self._cursor:
            source.seek(self._cursor)
            self._copier.clear()
        self._midway = True
        for step in range(self._cursor.step, len(epoch)):
            if run != self._runs:
                raise LoaderError("this loop over the loader ended when another one over it began")
            # Get the next batch, on the device.
            try:
                delivered = self._copier.next(source)
            except BaseException:
                self._at = None
                if not isinstance(source, ThreadSource):
                    self.close()
                raise
            if delivered.at != (self._cursor.epoch, step):
                self.close()
                raise LoaderError(
                    f"the batch of epoch {delivered.at[0]}, step {delivered.at[1]} came where that of epoch "
                    f"{self._cursor.epoch}, step {step} was expected: another process takes this loader's batches"
                )
            # Move the cursor before the batch is yielded: a `state_dict` taken in the loop continues after this batch.
            last = step + 1 == len(epoch)
            after = Cursor(epoch=self._cursor.epoch, step=step + 1, history=self._cursor.history)
            self.given = self._cursor
            self._cursor = self._at = Cursor(epoch=self._cursor.epoch + 1) if last else after
            self._midway = not last
            self._note(delivered.notes)
            batch = delivered.batch if self._setup.finish else self.dataset.finish(delivered.batch)
            self._note(self.dataset.take_notes())
            # Hold no reference to the batch: its slot is free once the caller drops it.
            del delivered
            source.release()
            yield batch
            del batch

    def keys_of(self, position: Cursor) -> list[SampleKey]:
        """Return the keys of this rank's batch at a position, one that `given` had.

        For unreadable images the ledger has the replacements.
        """
        return self.plan.epoch(position.epoch, position.history)[position.step]

    def state_dict(self) -> dict[str, Any]:
        """Return the position as plain numbers, strings and lists, for a checkpoint."""
        return {
            "version": _STATE_VERSION,
            "epoch": self._cursor.epoch,
            "step": self._cursor.step,
            "history": [[past.world_size, past.batch_size, past.steps] for past in self._cursor.history],
            "seed": self.plan.seed,
            "batch_size": self.plan.batch_size,
            "world_size": self.plan.world_size,
            "order": self._order_fingerprint,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Move to a saved position.

        Args:
            state: A `state_dict` of a loader of the same data, or `{"epoch": n}` for the beginning of epoch n.

        Raises:
            LoaderError: The state was saved with other data, another seed or another order.
        """
        if set(state) == {"epoch"}:
            self._cursor, self._midway, self._at = Cursor(epoch=int(state["epoch"])), False, None
            return
        missing = {"version", "epoch", "step", "history", "seed", "batch_size", "world_size", "order"} - set(state)
        if missing or state["version"] != _STATE_VERSION:
            raise LoaderError(f"not a state of this loader: found keys {sorted(state)}, missing {sorted(missing)}")
        # The state must be of the same order.
        way_out = f'load_state_dict({{"epoch": {state["epoch"]}}}) starts that epoch from its beginning'
        if state["seed"] != self.plan.seed:
            raise LoaderError(
                f"the state was saved with seed {state['seed']}, this loader has {self.plan.seed}; {way_out}"
            )
        if state["order"] != self._order_fingerprint:
            raise LoaderError(
                "the state was saved with other images, sizes or options of the order, "
                f"so its position means nothing here; {way_out}"
            )
        # With another world size or batch size, the steps done become a segment of the epoch's history.
        history = tuple(
            Segment(world_size=world, batch_size=batch, steps=steps) for world, batch, steps in state["history"]
        )
        epoch, step = int(state["epoch"]), int(state["step"])
        same = (state["world_size"], state["batch_size"]) == (self.plan.world_size, self.plan.batch_size)
        if step and not same:
            past = Segment(world_size=state["world_size"], batch_size=state["batch_size"], steps=step)
            history, step = (*history, past), 0
        if step >= len(self.plan.epoch(epoch, history)):
            epoch, step, history = epoch + 1, 0, ()
        self._cursor = Cursor(epoch=epoch, step=step, history=history)
        self._midway, self._at = False, None

    def close(self) -> None:
        """Stop the loader process. The loader stays usable: iterating starts another one."""
        if self._source is not None:
            self._copier.clear()
            self._source.close()
            self._source = self._at = None
        self.dataset.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> Source:
        if self._source is None:
            if self._in_process:
                self._source = ThreadSource(self._setup)
            else:
                self._source = ProcessSource(self._setup, on_map=self._copier.pin)
            self._at = None
        return self._source

    def _scan(self, on_upscale: str) -> tuple[np.ndarray[Any, np.dtype[np.int32]], list[LedgerEntry]]:
        with track("reading image sizes") as progress:
            buckets, notes = self.dataset.scan(progress=progress)
        self._check_length("scan", "buckets", buckets)
        sizes = len(self.dataset.bucket_sizes)
        if (last := int(buckets.max())) >= sizes:
            raise ConfigError(
                f"{type(self.dataset).__name__}.scan: found bucket {last}, expected -1 to {sizes - 1}: there "
                f"{'is' if sizes == 1 else 'are'} {sizes} of bucket_sizes"
            )
        # Apply `on_upscale`.
        small = {note.id: note for note in notes if note.kind == "upscaled"}
        if small and on_upscale == "error":
            raise ConfigError(
                f"{len(small)} images are too small for their bucket, the first: "
                f"{next(iter(small))}: {next(iter(small.values())).reason}; lower `resolution`, raise "
                "`buckets: {max_upscale: …}`, or choose on_upscale='warn' or 'skip'"
            )
        if small and on_upscale == "skip":
            ids = self.dataset.ids(0, len(self.dataset))
            buckets = buckets.copy()
            buckets[[i for i, id in enumerate(ids) if id in small]] = -1
            notes = [
                LedgerEntry(kind="too_small", id=note.id, reason=f"left out: {note.reason}")
                if note.kind == "upscaled"
                else note
                for note in notes
            ]
        return buckets, notes

    def _weights(self) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        weights = self.dataset.weights()
        if weights is not None:
            self._check_length("weights", "weights", weights)
        return weights

    def _check_length(self, method: str, what: str, found: np.ndarray[Any, Any]) -> None:
        if len(found) != len(self.dataset):
            raise ConfigError(
                f"{type(self.dataset).__name__}.{method}: found {len(found)} {what}, expected one for each of the "
                f"{len(self.dataset)} samples"
            )

    def _named(self, notes: list[LedgerEntry]) -> list[LedgerEntry]:
        """Return the entries with ids in place of row numbers."""
        rows = [int(note.id) for note in notes]
        ids = [self.dataset.ids(row, row + 1)[0] for row in rows]
        return [LedgerEntry(kind=n.kind, id=id, reason=n.reason) for n, id in zip(notes, ids, strict=True)]

    def _note(self, notes: list[LedgerEntry]) -> None:
        """Append to the ledger; log each entry once, and at most a few of each kind."""
        for note in notes:
            if note in self._cut:  # already added, from an earlier loader process
                continue
            if note.kind == "caption_cut":
                self._cut.add(note)
            self.ledger.append(note)
            if note.kind in ("repeated", "remainder") or (note.kind, note.id) in self._noted:
                continue
            self._noted.add((note.kind, note.id))
            self._noted_of_kind[note.kind] += 1
            if self._noted_of_kind[note.kind] <= _TELL:
                logger.warning("%s: %s", note.kind, about(note.id, note.reason))
            elif self._noted_of_kind[note.kind] == _TELL + 1:
                logger.warning("%s: further ones are noted in the loader's ledger only", note.kind)

    @cached_property
    def _order_fingerprint(self) -> str:
        """Hash of everything that the order depends on, except seed, epoch, batch size and world size."""
        digest = xxhash.xxh3_64()
        digest.update(np.ascontiguousarray(self.plan.buckets, dtype=np.int32).tobytes())
        digest.update(repr((tuple(self.plan.sizes), self.plan.remainder, self.plan.shuffle)).encode())
        if self.plan.weights is not None:
            digest.update(self.plan.weights.tobytes())
        samples = len(self.dataset)
        for start in range(0, samples, 1 << 16):
            ids = self.dataset.ids(start, min(start + (1 << 16), samples))
            digest.update("\0".join(ids).encode() + b"\0")
        return digest.hexdigest()

    def _no_batches(self, notes: list[LedgerEntry]) -> str:
        usable = int((np.asarray(self.plan.buckets) >= 0).sum())
        if not usable:
            counts = dict(Counter(note.kind for note in notes))
            return f"none of the {len(self.dataset)} images can be used: {counts}"
        return (
            f"remainder='drop' leaves no batch: no bucket holds batch_size × world_size = "
            f"{self.plan.batch_size * self.plan.world_size} of the {usable} samples; "
            "lower the batch size, or choose remainder='short' or 'repeat'"
        )


def _ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise ConfigError(f"rank and world_size go together: found rank={rank}, world_size={world_size}")
    if rank is not None and world_size is not None:
        return rank, world_size
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _default_threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(16, cores // max(1, ranks_here)))
