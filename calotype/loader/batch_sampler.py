"""`BatchSampler`: the order of a `Loader` for torch's DataLoader, as the keys of each batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from torch.utils.data import DataLoader, Sampler

from calotype.data.sample_source import SampleSource
from calotype.errors import ConfigError, LoaderError
from calotype.ledger import Ledger
from calotype.loader.order import OnUpscale, Order, at, ranks
from calotype.loader.plan import Cursor, EpochPlan, Remainder
from calotype.types import SampleKey

__all__ = ["BatchSampler"]


class BatchSampler(Sampler[list[SampleKey]]):
    """Yields the keys of each batch: `DataLoader(dataset, batch_sampler=BatchSampler(dataset, 4))`.

    The batches are those of a `Loader` with the same options: one bucket each, in a seeded order, the same number and
    shapes on every rank. Each key has the epoch, so augmentations differ from epoch to epoch in any worker, persistent
    or not, and there is no `set_epoch`: each `for batch in loader` is the next epoch. Breaking out of the loop ends the
    epoch.

    Args:
        dataset: The dataset of the DataLoader: a `TextToImageDataset`, an `EncodedDataset`, or your own `SampleSource`.
        batch_size: Samples per step and rank.
        shuffle: False yields the rows in their order, bucket by bucket.
        seed: Seeds the order and every random transform. Defaults to the dataset's seed.
        remainder: What to do with samples of a bucket that don't fill a step: `short` (a smaller batch), `repeat`
            (repeat other samples to fill it, as padding) or `drop` (leave them out, as `drop_last`). See `Plan`.
        on_upscale: What to do with images that have to be enlarged beyond `Buckets.max_upscale`: `warn`, `skip` or
            `error`.
        num_replicas: Number of ranks. Defaults to that of torch.distributed if it is initialised, else 1.
        rank: Rank of this process. Defaults to that of torch.distributed if it is initialised, else 0.
        ledger: Collects an entry for each sample left out, repeated or enlarged. Defaults to a new one.

    Raises:
        ConfigError: An option has an invalid value, or the dataset has no batch.
    """

    def __init__(
        self,
        dataset: SampleSource,
        batch_size: int = 1,
        *,
        shuffle: bool = True,
        seed: int | None = None,
        remainder: Remainder = "short",
        on_upscale: OnUpscale = "warn",
        num_replicas: int | None = None,
        rank: int | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        rank, world_size = ranks(rank, num_replicas, size_name="num_replicas")
        self._order = Order(
            dataset,
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
        self.batch_size = batch_size
        self.drop_last = remainder == "drop"
        """As torch's BatchSampler; accelerate reads it."""
        self._loop: _Loop | None = None
        """The loop that the cursor follows; None if there was none since the last `load_state_dict`."""

    def __repr__(self) -> str:
        return f"BatchSampler({self._order.describe()})"

    def __len__(self) -> int:
        """Return the number of batches of the current epoch, or between epochs of the next; the same on every rank."""
        return len(self._order)

    @property
    def epoch(self) -> int:
        """Epoch of the next batch that is requested, from 0."""
        return self._order.cursor.epoch

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return _Loop(self)

    def state_dict(self, loader: DataLoader[Any] | None = None) -> dict[str, Any]:
        """Return the position as plain numbers, strings and lists, for a checkpoint; `Loader` accepts it, too.

        Args:
            loader: The DataLoader that the training loop iterates over. Its workers request batches ahead of the loop:
                with it, the position is that of the loop. None returns the position of the last batch requested, which
                is the same without workers, and is what torchdata's StatefulDataLoader needs.

        Raises:
            ConfigError: The DataLoader has another batch sampler, or `in_order=False`: its batches have no position. Or
                accelerate prepared it: then it is one batch ahead of the loop, except at the end of an epoch.
        """
        if loader is None:
            return self._order.state_dict()
        if loader.batch_sampler is not self:
            raise ConfigError("state_dict: found a DataLoader with another batch sampler, expected one with this one")
        if not getattr(loader, "in_order", True):
            raise ConfigError("state_dict: found a DataLoader with in_order=False, expected in_order=True")
        if any(kind.__module__.startswith("accelerate.") for kind in type(loader).__mro__):
            raise ConfigError(
                f"state_dict: found a {type(loader).__name__} of accelerate, which takes a batch ahead of the loop; "
                "expected a DataLoader that was not given to accelerator.prepare: ranks share the batches already"
            )
        # A DataLoader requests this many batches before it yields the first one, and one for each that it yields.
        ahead = loader.num_workers * (loader.prefetch_factor or 0)
        return self._order.state_dict(None if self._loop is None else self._loop.position(ahead))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Move to a saved position: the next loop begins there.

        Args:
            state: A `state_dict` of a batch sampler or `Loader` of the same data, or `{"epoch": n}` for the beginning
                of epoch n. Batch size and number of ranks may differ.

        Raises:
            LoaderError: The state was saved with other data, another seed or another order.
        """
        self._order.load_state_dict(state)
        self._loop = None


class _Loop(Iterator[list[SampleKey]]):
    """One epoch, or the rest of one. It begins with the first request: a DataLoader makes iterators it does not use."""

    def __init__(self, sampler: BatchSampler) -> None:
        self._sampler = sampler
        self._order = sampler._order
        self._begun: tuple[Cursor, EpochPlan] | None = None
        """Position of the first batch, and the plan of its epoch."""
        self._requests = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[SampleKey]:
        if self._begun is None:
            self._order.begin()
            self._begun = (self._order.cursor, self._order.enter())
            self._sampler._loop = self
        elif self._sampler._loop is not self:
            raise LoaderError("this loop over the batch sampler ended when another one began, or a state was loaded")
        first, epoch = self._begun
        step = first.step + self._requests
        self._requests += 1
        self._order.note(self._order.dataset.take_notes())
        if step >= len(epoch):
            raise StopIteration
        self._order.move(epoch, step + 1)
        return epoch[step]

    def position(self, ahead: int) -> Cursor:
        """Return the position behind the batches requested, except for the last `ahead` requests."""
        assert self._begun is not None
        first, epoch = self._begun
        return at(first, epoch, first.step + max(0, self._requests - ahead))
