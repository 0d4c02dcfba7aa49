"""`Order`: the order of a dataset's batches and a position in it; `Loader` and `BatchSampler` have one each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import xxhash

from calotype.data.sample_source import SampleSource, check_source
from calotype.errors import ConfigError, LoaderError, ManifestError
from calotype.ledger import Ledger, LedgerEntry
from calotype.loader.plan import Cursor, EpochPlan, Plan, Remainder, Segment, check_options
from calotype.progress import track
from calotype.terminal import about, get_logger, visible

__all__ = ["OnUpscale", "Order", "at", "ranks"]

OnUpscale = Literal["warn", "skip", "error"]

logger = get_logger("calotype")
_STATE_VERSION = 1
_LINE = 200
"""Maximum characters of a logged entry; the ledger has it whole."""


class Order:
    """The batches of a dataset as keys, in a seeded order, with the position of the next batch.

    Args:
        dataset: The source of the samples.
        batch_size: Samples per step and rank.
        seed: Seeds the order and every random transform. Defaults to the dataset's seed.
        shuffle: As for `Plan`.
        remainder: As for `Plan`.
        on_upscale: What to do with images that have to be enlarged beyond `Buckets.max_upscale`.
        rank: Rank of this process.
        world_size: Number of ranks.
        ledger: Collects an entry for each sample left out, repeated or enlarged. Defaults to a new one.

    Raises:
        ConfigError: An option has an invalid value, or the dataset has no batch.
    """

    def __init__(
        self,
        dataset: SampleSource,
        *,
        batch_size: int,
        seed: int | None,
        shuffle: bool,
        remainder: Remainder,
        on_upscale: OnUpscale,
        rank: int,
        world_size: int,
        ledger: Ledger | None,
    ) -> None:
        # Check all options before images are read.
        if on_upscale not in ("warn", "skip", "error"):
            raise ConfigError(f"on_upscale: found {on_upscale!r}, expected 'warn', 'skip' or 'error'")
        check_options(batch_size, rank, world_size, remainder)
        check_source(dataset)
        if not len(dataset):
            raise ConfigError("the dataset has no samples, so there are no batches to make of it")
        self.dataset = dataset
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
            self.note(notes)
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
        # Look at two epochs: weights below 1 can leave the first one empty.
        if not any(len(self.plan.epoch(epoch)) for epoch in range(2)):
            raise self._no_batches(notes)
        self.cursor = Cursor()
        """Position of the next batch."""
        self._midway = False
        """Whether the cursor is within an epoch that `begin` has started."""
        self.epochs_begun = 0
        """Number of calls of `begin`."""

    def __len__(self) -> int:
        """Return the number of batches of the current epoch, or between epochs of the next; the same on every rank."""
        cursor = self.cursor
        done = sum(past.steps for past in cursor.history)
        return done + len(self.plan.epoch(cursor.epoch, cursor.history))

    def describe(self) -> str:
        """Return a line on the batches and the position."""
        plan, cursor = self.plan, self.cursor
        ranks = f", rank {plan.rank} of {plan.world_size}" if plan.world_size > 1 else ""
        order = "shuffled" if plan.shuffle else "in the order of the rows"
        return (
            f"{len(self)} batches of {plan.batch_size} per epoch, {order}, seed {plan.seed}{ranks}; "
            f"next: epoch {cursor.epoch}, batch {cursor.step}"
        )

    def begin(self) -> None:
        """Begin an epoch: that of the cursor, or the next one if the previous one was left before its end."""
        notes = self.dataset.begin_epoch(
            first=self.epochs_begun == 0,
            whole=self.epochs_begun > 0 and not self._midway,
            rank=self.plan.rank,
            world_size=self.plan.world_size,
        )
        self.note(notes)
        if self._midway:
            self.cursor = Cursor(epoch=self.cursor.epoch + 1)
        self.epochs_begun += 1

    def enter(self) -> EpochPlan:
        """Return the plan of the epoch that was begun; from here on, it counts as left if it is not moved through."""
        epoch = self.plan.epoch(self.cursor.epoch, self.cursor.history)
        if self.plan.rank == 0:
            self.note(self._named(epoch.remainders()))
        self._midway = True
        return epoch

    def move(self, epoch: EpochPlan, step: int) -> None:
        """Move the cursor to a step of its epoch, or behind the last one: to the next epoch."""
        self.cursor = at(self.cursor, epoch, step)
        self._midway = step < len(epoch)

    def state_dict(self, cursor: Cursor | None = None) -> dict[str, Any]:
        """Return a position as plain numbers, strings and lists, for a checkpoint. Defaults to the cursor."""
        cursor = cursor if cursor is not None else self.cursor
        return {
            "version": _STATE_VERSION,
            "epoch": cursor.epoch,
            "step": cursor.step,
            "history": [[past.world_size, past.batch_size, past.steps] for past in cursor.history],
            "seed": self.plan.seed,
            "batch_size": self.plan.batch_size,
            "world_size": self.plan.world_size,
            "order": self._fingerprint,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Move to a saved position.

        Args:
            state: A `state_dict` of an order of the same data, or `{"epoch": n}` for the beginning of epoch n.

        Raises:
            LoaderError: The state was saved with other data, another seed or another order.
        """
        if set(state) == {"epoch"}:
            self.cursor, self._midway = Cursor(epoch=int(state["epoch"])), False
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
        if state["order"] != self._fingerprint:
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
        self.cursor = Cursor(epoch=epoch, step=step, history=history)
        self._midway = False

    def note(self, notes: list[LedgerEntry]) -> None:
        """Append to the ledger; log the first entries of each kind, in one line with their number."""
        new: dict[str, list[LedgerEntry]] = {}
        for note in notes:
            if note in self._cut:  # already added, from an earlier loader process
                continue
            if note.kind == "caption_cut":
                self._cut.add(note)
            self.ledger.append(note)
            if note.kind in ("repeated", "remainder") or (note.kind, note.id) in self._noted:
                continue
            self._noted.add((note.kind, note.id))
            new.setdefault(note.kind, []).append(note)
        for kind, (first, *others) in new.items():
            self._noted_of_kind[kind] += 1
            if self._noted_of_kind[kind] == 1:
                count = f"{len(others) + 1:,}, the first " if others else ""
                logger.warning("%s", visible(f"{kind}: {count}{about(first.id, first.reason)}", _LINE))
            elif self._noted_of_kind[kind] == 2:
                logger.warning("%s: further ones are in the ledger only", kind)

    def _scan(self, on_upscale: OnUpscale) -> tuple[npt.NDArray[np.int32], list[LedgerEntry]]:
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

    def _weights(self) -> npt.NDArray[np.float64] | None:
        weights = self.dataset.weights()
        if weights is not None:
            self._check_length("weights", "weights", weights)
        return weights

    def _check_length(self, method: str, what: str, found: npt.NDArray[Any]) -> None:
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

    @cached_property
    def _fingerprint(self) -> str:
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

    def _no_batches(self, notes: list[LedgerEntry]) -> ConfigError | ManifestError:
        usable = int((np.asarray(self.plan.buckets) >= 0).sum())
        if not usable:
            kinds = Counter(note.kind for note in notes)
            counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
            return ManifestError(f"none of the {len(self.dataset):,} images can be used: {counts}")
        return ConfigError(
            f"remainder='drop' leaves no batch: no bucket holds batch_size × world_size = "
            f"{self.plan.batch_size * self.plan.world_size} of the {usable} samples; "
            "lower the batch size, or choose remainder='short' or 'repeat'"
        )


def at(cursor: Cursor, epoch: EpochPlan, step: int) -> Cursor:
    """Return the position of a step.

    Args:
        cursor: Any position in the epoch.
        epoch: The plan of the epoch.
        step: From 0 to the length of the epoch, which is the beginning of the next epoch.
    """
    if step < len(epoch):
        return Cursor(epoch=cursor.epoch, step=step, history=cursor.history)
    return Cursor(epoch=cursor.epoch + 1)


def ranks(rank: int | None, world_size: int | None, *, size_name: str = "world_size") -> tuple[int, int]:
    """Return (rank, world size): those given, else those of torch.distributed, else (0, 1).

    Args:
        rank: The option.
        world_size: The option.
        size_name: Name of the option `world_size`, for messages.

    Raises:
        ConfigError: Only one of them is given.
    """
    if (rank is None) != (world_size is None):
        raise ConfigError(f"rank and {size_name} go together: found rank={rank}, {size_name}={world_size}")
    if rank is not None and world_size is not None:
        return rank, world_size
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
