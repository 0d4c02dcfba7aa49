"""Verification: compare every byte of a store with its checksums, and look for NaN and inf."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calotype.encodings.store.encoding_store import EncodingStore
from calotype.encodings.store.layout import as_keys
from calotype.encodings.store.open_files import OpenFile
from calotype.encodings.store.shard import (
    ShardFile,
    damaged_records,
    list_shards,
    not_finite_records,
    read_header,
    read_keys,
)
from calotype.errors import StoreError
from calotype.progress import Show

__all__ = ["Damage", "Verification", "verify_store"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A damaged record or shard."""

    shard: str
    key: bytes | None
    """Key of the record; None for the whole shard."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Result of `verify_store`."""

    records: int
    bytes: int
    """Size of the shard files."""
    damage: list[Damage]

    def by_shard(self) -> dict[str, NDArray[np.uint8]]:
        """Return the keys of the damaged records by shard, for `EncodingStore.drop_from`."""
        keys: dict[str, list[bytes]] = {}
        for item in self.damage:
            if item.key is not None:
                keys.setdefault(item.shard, []).append(item.key)
        return {shard: as_keys(named) for shard, named in keys.items()}


def verify_store(store: EncodingStore, *, progress: Show = lambda done, total: None) -> Verification:
    """Read and verify the whole store, without the index. Dropped records do not count as damage.

    Args:
        store: The store.
        progress: Called with (bytes read, bytes in all).
    """
    shards = list_shards(store.path / "shards")
    total = sum(shard.size for shard in shards.values())
    records, done = 0, 0
    damage: list[Damage] = []
    for name, shard in shards.items():
        try:
            records += _verify_shard(store, name, shard, damage)
        except FileNotFoundError:  # finished or pruned meanwhile
            continue
        except OSError as error:
            damage.append(
                Damage(shard=name, key=None, reason=f"{shard.path}: can't be read: {error.strerror or error}")
            )
        except StoreError as error:
            damage.append(Damage(shard=name, key=None, reason=str(error)))
        done += shard.size
        progress(done, total)
    return Verification(records=records, bytes=total, damage=damage)


def _verify_shard(store: EncodingStore, name: str, shard: ShardFile, damage: list[Damage]) -> int:
    """Append to `damage`; return the number of records in the shard."""
    file = OpenFile(shard.path)
    header = read_header(file.fd, shard.path)
    dropped = {key.tobytes() for key in store.dropped.get(name, ())}
    records = 0
    for group in header.groups:
        if group.data_end > header.size:
            continue
        records += group.count
        damaged = damaged_records(file.fd, group)
        for found, what in (
            (damaged, "is not what was written: a checksum differs"),
            (not_finite_records(file.fd, group) & ~damaged, f"({group.layout.kind}) holds NaN or inf"),
        ):
            for key in read_keys(file.fd, group)[found]:
                if key.tobytes() not in dropped:
                    reason = f"{shard.path}: record {key.tobytes().hex()} {what}"
                    damage.append(Damage(shard=name, key=key.tobytes(), reason=reason))
    if lost := sum(group.count for group in header.groups if group.data_end > header.size):
        damage.append(Damage(shard=name, key=None, reason=f"{shard.path}: truncated, {lost} of its records are lost"))
    elif header.size != header.end and not shard.open:
        reason = f"{shard.path}: {header.size} bytes long, expected {header.end}; its records are whole"
        damage.append(Damage(shard=name, key=None, reason=reason))
    return records
