"""The validation split: which side an image is on follows from its content and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from calotype.manifest.archives.lmdb_index import lmdb_fingerprints
from calotype.manifest.fingerprint import of_file
from calotype.manifest.manifest import REMOTE

__all__ = ["held_out"]


def held_out(table: pa.Table, root: Path, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which rows of a manifest's table are held out for validation.

    The side is a hash of the seed and the image's fingerprint: its length in bytes and the first, middle and last
    16 KiB. Equal files have equal fingerprints, so copies under other names land on one side; no other image plays
    a part, so adding some moves none; and no file is read whole. (Different images with one fingerprint would
    merely share a side.) An image that is not on this machine, or can't be read, goes by its URL or id.
    """
    count = len(table)
    ids = table["id"].to_pylist()
    refs = ids if pa.types.is_null(table["ref"].type) else pc.coalesce(table["ref"], table["id"]).to_pylist()
    offsets, sizes, keys = (table[name].to_pylist() for name in ("offset", "size", "key"))
    environments = {str(ref): lmdb_fingerprints(root / ref) for ref in {refs[n] for n in range(count) if keys[n]}}

    def side(row: int) -> bool:
        ref = refs[row]
        what: bytes | None = None
        if keys[row] is not None:
            what = environments[ref].get(keys[row])
        elif REMOTE.match(ref):
            what = ref.encode("utf-8")
        else:
            try:
                what = of_file(str(root / ref), offsets[row] or 0, sizes[row])
            except OSError:
                what = None
        hashed = xxhash.xxh3_64_intdigest(what or ids[row].encode("utf-8"), seed=seed & (2**64 - 1))
        return hashed < fraction * 2.0**64

    # Waiting for the disk is what takes the time here.
    with ThreadPoolExecutor(8) as pool:
        return np.array(list(pool.map(side, range(count))), dtype=bool)
