"""The validation split: the side of an image depends on the seed and its content only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from calotype.manifest.archives.lmdb_index import lmdb_fingerprints
from calotype.manifest.fingerprint import of_file
from calotype.manifest.manifest import REMOTE, image_paths

__all__ = ["held_out"]


def held_out(table: pa.Table, root: Path, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return bool (N,): whether each row of a manifest's table is held out for validation.

    The side follows from a hash of the seed and the image's fingerprint (its length in bytes and the first, middle and
    last 16 KiB). So copies under other names are on the same side, adding images does not move others, and no file is
    read completely. For an image that is remote or can't be read, the URL or id is hashed instead.

    Args:
        table: The manifest's table.
        root: Folder that references are relative to.
        fraction: Share of the images to hold out, 0 to 1.
        seed: Seed of the selection.
    """
    count = len(table)
    ids = table["id"].to_pylist()
    refs = image_paths(table).to_pylist()
    offsets, sizes, keys = (table[name].to_pylist() for name in ("offset", "size", "key"))
    environments = {str(ref): lmdb_fingerprints(root / ref) for ref in {refs[n] for n in range(count) if keys[n]}}

    def is_held_out(row: int) -> bool:
        ref = refs[row]
        content: bytes | None = None
        if keys[row] is not None:
            content = environments[ref].get(keys[row])
        elif REMOTE.match(ref):
            content = ref.encode("utf-8")
        else:
            try:
                content = of_file(str(root / ref), offsets[row] or 0, sizes[row])
            except OSError:
                content = None
        hashed = xxhash.xxh3_64_intdigest(content or ids[row].encode("utf-8"), seed=seed & (2**64 - 1))
        return hashed < fraction * 2.0**64

    # Most of the time is spent waiting for the disk.
    with ThreadPoolExecutor(8) as pool:
        return np.array(list(pool.map(is_held_out, range(count))), dtype=bool)
