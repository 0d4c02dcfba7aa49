"""How fast does a store of many records open, and how fast are look-ups?

python benchmarks/store_index.py [records] [shards]

The records are tiny, so that they fit on the disk; the index only has keys, groups and shards. Each number is the
median of a few rounds, each round in a separate process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from calotype.encodings.store import EncodingStore
from calotype.encodings.store.writer import ShardWriter

ROUNDS = 5
GROUP = 8
"""Records of a put: what an autoencoder takes at once."""

OPEN = """
import sys, time, json, numpy as np
from calotype.encodings.store import EncodingStore
keys = np.load(sys.argv[2])
start = time.perf_counter(); store = EncodingStore(sys.argv[1]); opened = time.perf_counter() - start
start = time.perf_counter(); rows = store.find(keys); found = time.perf_counter() - start
assert (rows >= 0).all() and len(store) == len(keys) and not store.damaged
assert (store.find(keys[::-1] ^ 255) < 0).all()
one = keys[:1000]
start = time.perf_counter()
for key in one: store.find(key[None])
single = (time.perf_counter() - start) / len(one)
print(json.dumps({"open": opened, "find all": found, "find one": single}))
"""


def build(folder: str, records: int, shards: int) -> np.ndarray:
    """A store of so many records and shards; returns the keys in random order."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 256, (records, 16), dtype=np.uint8)
    EncodingStore(folder, create=True)
    for part in np.array_split(keys, shards):
        with ShardWriter(Path(folder, "shards")) as writer:
            for start in range(0, len(part), GROUP):
                group = part[start : start + GROUP]
                writer.put(group, {"n": torch.from_numpy(group[:, :4].copy())}, kind="picture")
    return keys[rng.permutation(records)]


def opened(folder: str, keys: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", OPEN, folder, keys], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    records = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    shards = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        np.save(f"{folder}/keys.npy", build(f"{folder}/store", records, shards))
        spent = time.perf_counter() - start
        print(f"{records:,} records in {shards:,} shards, groups of {GROUP}: written in {spent:.0f} s")
        index = Path(folder, "store", "index.safetensors")
        index.unlink(missing_ok=True)
        first = opened(f"{folder}/store", f"{folder}/keys.npy")
        print(f"index made from the shards: {first['open']:.2f} s, {index.stat().st_size / 1e6:.0f} MB")
        rounds = [opened(f"{folder}/store", f"{folder}/keys.npy") for _ in range(ROUNDS)]
        for name in rounds[0]:
            values = [figures[name] for figures in rounds]
            spread = f"{min(values):.3g} – {max(values):.3g}"
            scale, unit = (1e6, "µs") if name == "find one" else (1, "s")
            print(f"{name:10} {statistics.median(values) * scale:8.3f} {unit}   ({spread} s)")
    print(f"medians of {ROUNDS}; {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
