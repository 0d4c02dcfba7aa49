"""Counts of a store's contents."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from calotype.encodings.store.encoding_store import EncodingStore
from calotype.encodings.store.recovery import BROKEN
from calotype.encodings.store.shard import list_shards

__all__ = ["OfKind", "StoreSummary", "summarise_store"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OfKind:
    """The records of one kind."""

    records: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSummary:
    """Counts of a store, as `calotype cache ls` shows them."""

    path: str
    records: int
    """Records that can be found."""
    bytes: int
    """Bytes of their tensors."""
    kinds: dict[str, OfKind]
    shards: int
    open_shards: int
    """Shards that are being written, or whose writer died."""
    disk_bytes: int
    """Size of the shard files."""
    dropped: int
    """Dropped records that are not pruned yet."""
    damaged: dict[str, str]
    """Shards that can't be read completely → reason."""
    set_aside: list[str]
    """Shards that could not be recovered."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarise_store(store: EncodingStore) -> StoreSummary:
    """Count the contents of a store, without reading the records."""
    folder = store.path / "shards"
    shards = list_shards(folder)
    layouts, which = store.layouts(store.rows())
    counts = np.bincount(which, minlength=len(layouts)).tolist()
    kinds = {
        kind: OfKind(
            records=sum(n for layout, n in zip(layouts, counts, strict=True) if layout.kind == kind),
            bytes=sum(n * layout.nbytes for layout, n in zip(layouts, counts, strict=True) if layout.kind == kind),
        )
        for kind in sorted({layout.kind for layout, n in zip(layouts, counts, strict=True) if n})
    }
    return StoreSummary(
        path=str(store.path),
        records=sum(kind.records for kind in kinds.values()),
        bytes=sum(kind.bytes for kind in kinds.values()),
        kinds=kinds,
        shards=len(shards),
        open_shards=sum(shard.open for shard in shards.values()),
        disk_bytes=sum(shard.size for shard in shards.values()),
        dropped=sum(len(keys) for keys in store.dropped.values()),
        damaged=dict(store.damaged),
        set_aside=sorted(path.name for path in folder.glob(f"*{BROKEN}")),
    )
