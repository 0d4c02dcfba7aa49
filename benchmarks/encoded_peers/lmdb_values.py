"""LMDB: one value per sample, read from the map directly into the batch; under DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lmdb
import torch

from encoded_peers import BYTES, Batch, Epoch, Job, Samples, as_bytes, stacked
from encoded_peers.torch_loader import epochs

_COMMIT = 32


def write(job: Job, samples: Samples, numbers: Sequence[int]) -> None:
    with lmdb.open(str(job.folder), map_size=1 << 40, subdir=True) as env:
        for start in range(0, len(numbers), _COMMIT):
            with env.begin(write=True) as transaction:
                for number in numbers[start : start + _COMMIT]:
                    value = b"".join(map(as_bytes, samples[number].values()))
                    transaction.put(b"%08d" % number, value, append=True)


class Values(torch.utils.data.Dataset[Batch]):
    """Opened in each worker; gives whole batches, for which alone the values stay where they are."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._env: lmdb.Environment | None = None

    def __len__(self) -> int:
        return self._job.samples

    def __getitems__(self, numbers: Sequence[int]) -> Batch:
        if self._env is None:
            self._env = lmdb.open(str(self._job.folder), readonly=True, lock=False)
        with self._env.begin(buffers=True) as transaction:
            parts = []
            for number in numbers:
                value, at, part = transaction.get(b"%08d" % number), 0, {}
                assert value is not None
                for name, size in BYTES.items():
                    part[name] = value[at : at + size]
                    at += size
                parts.append(part)
            return stacked(parts)


def open_loader(job: Job) -> Epoch:
    def epoch() -> Iterator[Batch]:
        yield from loader

    loader = epochs(Values(job), job, collate=_as_it_is)
    return epoch


def _as_it_is(batch: Batch) -> Batch:
    return batch
