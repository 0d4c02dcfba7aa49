"""`Plan`: the samples of each batch, for any step of any epoch, as a pure function.

Only the rows of each bucket are stored. A step maps to a bucket and an offset in it, and a permutation maps the offset
to rows. So any step can be computed without those before it: a resume is exact, and all ranks and the loader process
agree without communication.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from calotype.errors import ConfigError
from calotype.ledger import LedgerEntry
from calotype.loader.permutation import Permutation
from calotype.types import SampleKey

__all__ = ["Cursor", "EpochPlan", "Plan", "Remainder", "Segment", "check_options"]

Remainder = Literal["short", "repeat", "drop"]
_LEFT_OUT = -1
_STAND_INS = 8
"""Maximum number of replacements tried for an unreadable sample: so many bad images in a row are a systematic error."""
_STAND_IN_REPEAT = 1_000_000
"""Minimum `SampleKey.repeat` of a replacement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Steps of an epoch that ran with another world size or batch size before a resume."""

    world_size: int
    batch_size: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A position in the infinite stream of batches."""

    epoch: int = 0
    step: int = 0
    """Steps of this epoch already done, since the last change of world size or batch size."""
    history: tuple[Segment, ...] = ()
    """Steps of this epoch before that change; empty if there was none."""


def check_options(batch_size: int, rank: int, world_size: int, remainder: str) -> None:
    """Check the options of a plan, before anything expensive is done.

    Raises:
        ConfigError: An option has an invalid value.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: found {batch_size}, expected at least 1")
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank: found {rank}, expected 0 to world_size - 1 = {world_size - 1}")
    if remainder not in ("short", "repeat", "drop"):
        raise ConfigError(f"remainder: found {remainder!r}, expected 'short', 'repeat' or 'drop'")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that the batches of an epoch depend on, except the epoch.

    Args:
        buckets: int (N,): the bucket of each row; -1 leaves a row out.
        sizes: (height, width) of each bucket in pixels; None leaves the size to the image transform.
        batch_size: Samples per step and rank.
        seed: Seeds the order and every random transform.
        rank: Rank whose batches the plan returns.
        world_size: Number of ranks.
        remainder: What to do with samples of a bucket that don't fill a step of `world_size × batch_size`: `short`
            makes a smaller batch of them (of the same size on every rank: it may repeat up to `world_size - 1`
            samples), `repeat` repeats samples of the bucket to fill the step, `drop` leaves them out of this epoch.
        shuffle: False keeps the order of the rows within a bucket, and of the buckets.
        weights: float (N,): repeats of each row in an epoch; None is once each. A fraction is spread over epochs: 0.5
            is every second epoch.
    """

    buckets: npt.NDArray[np.integer]
    sizes: Sequence[tuple[int, int] | None]
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    remainder: Remainder = "short"
    shuffle: bool = True
    weights: npt.NDArray[np.float64] | None = None
    _entries: _Entries = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_options(self.batch_size, self.rank, self.world_size, self.remainder)
        if self.weights is not None and (self.weights == 1).all():
            object.__setattr__(self, "weights", None)
        object.__setattr__(self, "_entries", _Entries.of(self.buckets, len(self.sizes), None))

    def epoch(self, epoch: int, history: Sequence[Segment] = ()) -> EpochPlan:
        """Return the batches of one epoch, or of its remaining samples after `history`.

        Args:
            epoch: From 0.
            history: Steps of this epoch that ran with other world or batch sizes, in order.
        """
        entries = self._entries
        if self.weights is not None:
            entries = _Entries.of(self.buckets, len(self.sizes), self._counts(epoch))
        plan = EpochPlan(plan=self, epoch=epoch, entries=entries, generation=0, world_size=self.world_size)
        # Remove the samples that each segment consumed, and plan the remaining ones again.
        for generation, past in enumerate(history):
            before = EpochPlan(
                plan=self,
                epoch=epoch,
                entries=entries,
                generation=generation,
                world_size=past.world_size,
                batch_size=past.batch_size,
            )
            entries = entries.without(before.consumed(past.steps))
            plan = EpochPlan(
                plan=self, epoch=epoch, entries=entries, generation=generation + 1, world_size=self.world_size
            )
        return plan

    def _counts(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return how often each row occurs in an epoch: int64 (N,).

        A row i with weight w occurs `floor((epoch + 1) * w + p) - floor(epoch * w + p)` times. Its phase p, `i` times
        the golden ratio modulo 1, differs from other rows': of a thousand rows with weight 0.5, each epoch has half.
        """
        assert self.weights is not None
        phase = (np.arange(len(self.weights)) * 0.6180339887498949) % 1.0
        counts = np.floor((epoch + 1) * self.weights + phase) - np.floor(epoch * self.weights + phase)
        return counts.astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Entries:
    """The entries of an epoch, sorted by bucket. An entry is one occurrence of a row."""

    rows: npt.NDArray[np.integer]
    """(E,): the row of each entry."""
    repeats: npt.NDArray[np.integer] | None
    """(E,): how often the row occurred before in this epoch; None if every row occurs once."""
    starts: npt.NDArray[np.int64]
    """(buckets + 1,): the entries of bucket b are [starts[b], starts[b + 1])."""

    @classmethod
    def of(cls, buckets: npt.NDArray[np.integer], n: int, counts: npt.NDArray[np.int64] | None) -> _Entries:
        """Return the entries of all rows.

        Args:
            buckets: int (N,): the bucket of each row, -1 to leave it out.
            n: Number of buckets.
            counts: int (N,): how often each row occurs; None is once each.
        """
        # Sort the rows by bucket; those to leave out come first.
        order = np.argsort(buckets, kind="stable")
        order = order[np.searchsorted(buckets[order], _LEFT_OUT, side="right") :]
        if len(buckets) < 2**31:
            order = order.astype(np.int32)
        # Repeat each row as often as it occurs.
        repeats = None
        if counts is not None:
            count = counts[order]
            firsts = np.cumsum(count) - count
            order = np.repeat(order, count)  # (E,)
            repeats = np.arange(len(order)) - np.repeat(firsts, count)
        return cls(order, repeats, np.searchsorted(buckets[order], np.arange(n + 1)))

    def without(self, entries: npt.NDArray[np.int64]) -> _Entries:
        """Return the entries except those at these indices."""
        keep = np.ones(len(self.rows), dtype=bool)
        keep[entries] = False
        starts = np.concatenate([[0], np.cumsum(keep)])[self.starts]
        return _Entries(self.rows[keep], None if self.repeats is None else self.repeats[keep], starts)


class EpochPlan:
    """The batches of one epoch: `plan[step]` is the list of keys of this rank's batch.

    `len(plan)` is the number of steps, the same on every rank. In each step, the batches of all ranks have the same
    bucket and the same number of samples.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        epoch: int,
        entries: _Entries,
        generation: int,
        world_size: int,
        batch_size: int | None = None,
    ) -> None:
        self._plan, self._epoch, self._entries, self._generation = plan, epoch, entries, generation
        self._world_size, self._batch_size = world_size, batch_size or plan.batch_size
        self.counts: npt.NDArray[np.int64] = np.diff(entries.starts)
        """(buckets,): number of samples of each bucket, before `remainder` is applied."""
        whole = self._world_size * self._batch_size
        steps = self.counts // whole if plan.remainder == "drop" else -(-self.counts // whole)
        self._ends = np.cumsum(steps)
        self._steps = int(self._ends[-1]) if len(steps) else 0
        self._order = Permutation(self._steps, *self._key(0)) if self._steps and plan.shuffle else None
        self._shuffles: dict[int, Permutation] = {}

    def __len__(self) -> int:
        return self._steps

    def short(self) -> tuple[int, int]:
        """Return (number of steps with fewer than `batch_size` samples per rank, samples of the smallest per rank)."""
        left = self.counts % (self._world_size * self._batch_size)
        sizes = -(-left[left > 0] // self._world_size) if self._plan.remainder == "short" else left[:0]
        sizes = sizes[sizes < self._batch_size]
        return len(sizes), int(sizes.min(initial=self._batch_size))

    def __getitem__(self, step: int) -> list[SampleKey]:
        bucket, offset, size, _ = self._at(step)
        mine = offset + self._plan.rank * size + np.arange(size)  # (size,) offsets in the bucket
        return self._keys(bucket, mine)

    def stand_ins(self, step: int, index: int) -> Iterator[SampleKey]:
        """Yield replacements for an unreadable sample, in the order in which to try them.

        First the next samples of its bucket, then those of other buckets. None is of a row in this step, and no two
        samples of the step, on any rank, have a replacement in common. If there are not enough such rows, a row of the
        step is repeated. All of it follows from the plan, so a resumed run uses the same replacements.

        Args:
            step: The step that the sample belongs to.
            index: Index of the sample in this rank's batch.
        """
        bucket, _, size, _ = self._at(step)
        together = self._world_size * size
        mine = self._plan.rank * size + index
        inside, outside = self._stand_ins(step)
        for attempt in range(_STAND_INS):
            number = attempt * together + mine
            row = outside[number] if number < len(outside) else inside[(mine + 1 + attempt) % len(inside)]
            # Its own randomness: this row may also occur in the epoch as itself.
            repeat = _STAND_IN_REPEAT + number
            yield SampleKey(int(row), self._epoch, self._plan.sizes[bucket], self._plan.seed, repeat)

    def _stand_ins(self, step: int) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
        """Return (the rows of a step, on all ranks; the rows outside it, in the order in which to try them)."""
        bucket, offset, size, count = self._at(step)
        together, rows = self._world_size * size, self._entries.rows
        most = _STAND_INS * together
        inside = rows[self._entries_at(bucket, (offset + np.arange(together)) % count)]
        # Candidates: the next samples of the bucket, then those of the following buckets, both wrapping around.
        after = self._entries_at(bucket, (offset + together + np.arange(min(most, max(0, count - together)))) % count)
        others = (self._entries.starts[bucket + 1] + np.arange(min(most, len(rows) - count))) % len(rows)
        found = rows[np.concatenate([after, others])]
        _, first = np.unique(found, return_index=True)  # a row may have several entries
        found = found[np.sort(first)]
        return inside, found[~np.isin(found, inside)]

    def remainders(self) -> list[LedgerEntry]:
        """Return a ledger entry for each sample left out or repeated because of `remainder`; the id is a row number."""
        entries = []
        whole = self._world_size * self._batch_size
        for bucket, count in enumerate(self.counts.tolist()):
            left = count % whole
            if not left:
                continue
            if self._plan.remainder == "drop":
                kind, verb = "remainder", "left out of"
                offsets = np.arange(count - left, count)
            else:
                size = self._batch_size if self._plan.remainder == "repeat" else -(-left // self._world_size)
                kind, verb = "repeated", "repeated in"
                offsets = np.arange(count, count - left + size * self._world_size)
            for key in self._keys(bucket, offsets):
                reason = (
                    f"{verb} epoch {self._epoch}: bucket {self._plan.sizes[bucket]} has {count} samples, "
                    f"steps take {whole}"
                )
                entries.append(LedgerEntry(kind=kind, id=str(key.index), reason=reason))
        return entries

    def consumed(self, steps: int) -> npt.NDArray[np.int64]:
        """Return the indices of the entries that all ranks together used in the first `steps` steps."""
        out = [np.empty(0, dtype=np.int64)]
        for step in range(steps):
            bucket, offset, size, count = self._at(step)
            offsets = np.arange(offset, min(offset + size * self._world_size, count))
            out.append(self._entries_at(bucket, offsets))
        return np.concatenate(out)

    def _at(self, step: int) -> tuple[int, int, int, int]:
        """Return (bucket, offset in it of rank 0's first sample, samples per rank, samples in the bucket) of a step."""
        if not 0 <= step < self._steps:
            raise IndexError(f"step {step} of an epoch of {self._steps} steps")
        slot = int(self._order(step)) if self._order is not None else step
        bucket = int(np.searchsorted(self._ends, slot, side="right"))
        first = int(self._ends[bucket - 1]) if bucket else 0
        offset = (slot - first) * self._world_size * self._batch_size
        count = int(self.counts[bucket])
        size = self._batch_size
        if self._plan.remainder == "short":
            size = min(size, -(-(count - offset) // self._world_size))
        return bucket, offset, size, count

    def _entries_at(self, bucket: int, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the indices of the entries at offsets in a bucket, after the shuffle."""
        if self._plan.shuffle:
            if bucket not in self._shuffles:
                self._shuffles[bucket] = Permutation(int(self.counts[bucket]), *self._key(1 + bucket))
            offsets = self._shuffles[bucket](offsets)
        return np.asarray(offsets + self._entries.starts[bucket])

    def _keys(self, bucket: int, offsets: npt.NDArray[np.int64]) -> list[SampleKey]:
        """Return the keys at offsets in a bucket. Offsets past its end wrap around, and their keys count as repeats."""
        count = int(self.counts[bucket])
        entries = self._entries_at(bucket, offsets % count)
        rounds = offsets // count * (1 << 20)  # more than the repeats of any row in an epoch
        repeats = rounds if self._entries.repeats is None else rounds + self._entries.repeats[entries]
        size, seed = self._plan.sizes[bucket], self._plan.seed
        return [
            SampleKey(row, self._epoch, size, seed, repeat)
            for row, repeat in zip(self._entries.rows[entries].tolist(), repeats.tolist(), strict=True)
        ]

    def _key(self, purpose: int) -> tuple[int, ...]:
        """Return the key of a `Permutation`: purpose 0 is the order of the steps, 1 + b the shuffle of bucket b."""
        seed = self._plan.seed & ((1 << 64) - 1)
        return (seed, self._epoch, self._generation, purpose)
