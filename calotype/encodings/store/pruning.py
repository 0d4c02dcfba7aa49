"""Pruning: remove records that no dataset needs. A kill at any moment loses none of the others."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calotype.encodings.store.dropped import forget_dropped
from calotype.encodings.store.encoding_store import EncodingStore
from calotype.encodings.store.export import copy_records
from calotype.encodings.store.files import cannot_write
from calotype.encodings.store.index import comparable
from calotype.encodings.store.open_files import OpenFile
from calotype.encodings.store.recovery import BROKEN
from calotype.encodings.store.shard import ShardFile, list_shards, read_header
from calotype.errors import NewerFormatError, StoreError
from calotype.progress import Show

__all__ = ["Pruned", "prune_store"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was removed, or would be with `dry_run`."""

    records: int
    """Records that are not needed, dropped or duplicates."""
    bytes: int
    """Bytes of their tensors."""
    shards: int
    """Shards rewritten or deleted."""
    set_aside: list[str]
    """Shards whose header can't be read: renamed to `*.broken`, to be deleted by hand."""
    damaged: list[str]
    """A message for each record that was to be kept and is damaged; these were removed, too."""


def prune_store(
    store: EncodingStore,
    keep: NDArray[np.uint8] | None,
    *,
    dry_run: bool = False,
    progress: Show = lambda done, total: None,
) -> Pruned:
    """Rewrite the shards without the records that are not needed, and delete the old shards.

    Shards that a running writer has open are skipped. A shard is deleted once all of its records to keep are in a
    finished shard: a kill leaves duplicates, which the next call removes. Readers may run at the same time, and find a
    record in its new shard; do not run an encode job at the same time.

    Args:
        store: The store.
        keep: Keys (n, 16) of the records to keep; None removes only dropped records and duplicates.
        dry_run: Count without changing anything.
        progress: Called with (shards done, shards in all).

    Raises:
        StoreError: The folder can't be written; nothing is lost.
    """
    if dry_run:
        return _prune(store, _plan(store, keep), dry_run=True, progress=progress)
    store.writer().close()  # finishes what dead writers left
    try:
        return _prune(store, _plan(store, keep), dry_run=False, progress=progress)
    except OSError as error:
        raise cannot_write(store.path / "shards", error) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    rewrite: list[tuple[ShardFile, NDArray[np.int64]]]
    """Shards to rewrite, with the rows to keep."""
    broken: list[ShardFile]
    records: int
    bytes: int


def _plan(store: EncodingStore, keep: NDArray[np.uint8] | None) -> _Plan:
    """Select the shards to rewrite and their rows to keep."""
    # Rows to keep: one per key, in finished shards.
    finished = {name: shard for name, shard in list_shards(store.path / "shards").items() if not shard.open}
    rows = np.array([row for row in store.rows().tolist() if store.shard(row) in finished], np.int64)
    keys = store.keys(rows)
    stays = np.zeros(len(rows), np.bool_)
    names = comparable(keys)
    stays[np.unique(names, return_index=True)[1]] = True
    if keep is not None:
        stays &= np.isin(names, comparable(keep))
    staying: dict[str, list[int]] = {}
    for row in rows[stays].tolist():
        staying.setdefault(store.shard(row), []).append(row)
    # Shards with other records. Records are counted from the headers, since dropped ones have no row.
    rewrite, broken, records, nbytes = [], [], 0, 0
    layouts, which = store.layouts(rows[stays])
    kept = sum(layouts[number].nbytes for number in which.tolist())
    for name, shard in finished.items():
        try:
            file = OpenFile(shard.path)
            groups = read_header(file.fd, shard.path).groups
        except NewerFormatError:
            continue
        except StoreError:
            broken.append(shard)
            continue
        total = sum(group.count for group in groups)
        records += total
        nbytes += sum(group.count * group.layout.nbytes for group in groups)
        if total > len(staying.get(name, ())):
            rewrite.append((shard, np.array(staying.get(name, ()), np.int64)))
    return _Plan(rewrite=rewrite, broken=broken, records=records - int(stays.sum()), bytes=nbytes - kept)


def _prune(store: EncodingStore, plan: _Plan, *, dry_run: bool, progress: Show) -> Pruned:
    damaged: list[str] = []
    if not dry_run:
        waiting: deque[tuple[int, ShardFile]] = (
            deque()
        )  # old shards, each with the number of finished shards after which it can go
        with store.writer() as writer:
            for number, (shard, rows) in enumerate(plan.rewrite, start=1):
                damaged += copy_records(store, rows, writer).damaged
                waiting.append((writer.finished + 1 if len(rows) else writer.finished, shard))
                while waiting and waiting[0][0] <= writer.finished:
                    waiting.popleft()[1].path.unlink(missing_ok=True)
                progress(number, len(plan.rewrite))
        for _, shard in waiting:
            shard.path.unlink(missing_ok=True)
        for shard in plan.broken:
            shard.path.rename(shard.path.with_suffix(BROKEN))
        forget_dropped(store.path, set(list_shards(store.path / "shards")))
        store.refresh()
    return Pruned(
        records=plan.records,
        bytes=plan.bytes,
        shards=len(plan.rewrite),
        set_aside=[shard.path.with_suffix(BROKEN).name for shard in plan.broken],
        damaged=damaged,
    )
