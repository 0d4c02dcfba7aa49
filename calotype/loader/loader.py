"""`Loader`: iterates over batches on the device; each `for batch in loader` is one epoch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

import torch

from calotype.data.sample_source import SampleSource, check_source
from calotype.errors import ConfigError, LoaderError
from calotype.ledger import Ledger
from calotype.loader.device import DeviceCopier, usable_device
from calotype.loader.order import OnUpscale, Order, ranks
from calotype.loader.plan import Cursor, Remainder
from calotype.loader.process import Setup
from calotype.loader.produce import OnError
from calotype.loader.source import ProcessSource, Source, ThreadSource
from calotype.loader.starting import StartingSource
from calotype.loader.torch_options import points_from_torch
from calotype.types import Batch, SampleKey

__all__ = ["Loader"]

_MAX_PREFETCH: Final = 1000


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
        prefetch: Number of batches prepared ahead, 1 to 1000.
        in_process: Prepare samples in threads of this process instead of a loader process. For small datasets that are
            already in memory, and for platforms without Unix sockets. Without it, the first batches come from such
            threads, too, until the loader process has started.
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

    @points_from_torch
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
        on_upscale: OnUpscale = "warn",
        device_cache: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        # Check all options before images are read.
        if on_error not in ("replace", "raise"):
            raise ConfigError(f"on_error: found {on_error!r}, expected 'replace' or 'raise'")
        if not 1 <= prefetch <= _MAX_PREFETCH:
            raise ConfigError(
                f"prefetch: found {prefetch}, expected 1 to {_MAX_PREFETCH}: so many batches are in memory at once"
            )
        if threads is not None and threads < 1:
            raise ConfigError(f"threads: found {threads}, expected at least 1")
        rank, world_size = ranks(rank, world_size)
        check_source(dataset)
        self.device = usable_device(device)
        self.dataset = dataset.with_device_cache(self.device) if device_cache else dataset
        self._order = Order(
            self.dataset,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            remainder=remainder,
            on_upscale=on_upscale,
            rank=rank,
            world_size=world_size,
            ledger=ledger,
        )
        self.plan, self.ledger = self._order.plan, self._order.ledger
        # What prepares the batches: started by the first epoch.
        self._setup = Setup(
            dataset=self.dataset,
            plan=self.plan,
            threads=threads if threads is not None else _default_threads(),
            prefetch=prefetch,
            on_error=on_error,
            finish=self.device.type == "cpu" and not self.dataset.finishes_in_trainer,
        )
        self._in_process = in_process or device_cache or sys.platform == "win32"
        self._copier = DeviceCopier(self.device)
        self.given: Cursor | None = None
        """Position of the last batch yielded; see `keys_of`."""
        self._source: Source | None = None
        self._at: Cursor | None = None
        """Position of the source's next batch; None if it is unknown."""

    def __repr__(self) -> str:
        return f"Loader({self._order.describe()}; on {self.device},\n    {self.dataset!r})"

    def __len__(self) -> int:
        """Return the number of batches of the current epoch, or between epochs of the next; the same on every rank."""
        return len(self._order)

    @property
    def epoch(self) -> int:
        """Epoch of the next batch, from 0."""
        return self._order.cursor.epoch

    def __iter__(self) -> Iterator[Batch]:
        self._order.begin()
        return self._run(self._order.epochs_begun)

    def _run(self, run: int) -> Iterator[Batch]:
        order = self._order
        epoch = order.enter()
        # Open the source, and move it if it is not at the cursor.
        source = self._open()
        if self._at != order.cursor:
            source.seek(order.cursor)
            self._copier.clear()
        for step in range(order.cursor.step, len(epoch)):
            if run != order.epochs_begun:
                raise LoaderError("this loop over the loader ended when another one over it began")
            # Get the next batch, on the device.
            try:
                delivered = self._copier.next(source)
            except BaseException:
                self._at = None
                if not isinstance(source, ThreadSource):
                    self.close()
                raise
            if delivered.at != (order.cursor.epoch, step):
                self.close()
                raise LoaderError(
                    f"the batch of epoch {delivered.at[0]}, step {delivered.at[1]} came where that of epoch "
                    f"{order.cursor.epoch}, step {step} was expected: another process takes this loader's batches"
                )
            # Move the cursor before the batch is yielded: a `state_dict` taken in the loop continues after this batch.
            self.given = order.cursor
            order.move(epoch, step + 1)
            self._at = order.cursor
            order.note(delivered.notes)
            batch = delivered.batch if self._setup.finish else self.dataset.finish(delivered.batch)
            order.note(self.dataset.take_notes())
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
        return self._order.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Move to a saved position.

        Args:
            state: A `state_dict` of a loader of the same data, or `{"epoch": n}` for the beginning of epoch n.

        Raises:
            LoaderError: The state was saved with other data, another seed or another order.
        """
        self._order.load_state_dict(state)
        self._at = None

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
                # Threads that hand over to the process would leave what they have fetched ahead.
                starting = self.dataset.starts_in_trainer and not self.dataset.lookahead
                kind = StartingSource if starting else ProcessSource
                self._source = kind(self._setup, on_map=self._copier.pin)
            self._at = None
        return self._source


def _default_threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(16, cores // max(1, ranks_here)))
