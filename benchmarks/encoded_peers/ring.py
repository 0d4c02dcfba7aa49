"""The bare limit: two threads that read the store's bytes with `os.preadv` into preallocated batches.

No separate interpreter, no checks, no keys: the offsets of all tensors are known in advance. It reads the same bytes,
in as many calls, as the Loader.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from calotype.types import SampleKey
from encoded_peers import FIELDS, Batch, Epoch, Job
from encoded_peers.store import open_dataset

_AHEAD = 2


def open_loader(job: Job) -> Epoch:
    dataset = open_dataset(job)
    store, records = dataset.store, dataset.records
    places = []
    for row in range(len(dataset)):
        key = dataset.dataset.checked(SampleKey(row))
        keys = [records.image(key).key, records.text_key(records.caption(key).text)]
        image, text = store.find(keys).tolist()
        places.append([store.locate(image if name == "moments" else text, name) for name in FIELDS])
    ring = [
        {name: torch.zeros(job.batch_size, *shape, dtype=torch.bfloat16) for name, shape in FIELDS.items()}
        for _ in range(_AHEAD + 2)
    ]
    memory = [
        [[slot[name][row].view(-1).view(torch.uint8).numpy() for name in FIELDS] for row in range(job.batch_size)]
        for slot in ring
    ]
    threads = ThreadPoolExecutor(job.workers)

    def read(number: int, slot: int, row: int) -> None:
        for place, out in zip(places[number], memory[slot][row], strict=True):
            os.preadv(place.file.fd, [out], place.offset)

    def epoch() -> Iterator[Batch]:
        order = random.sample(range(job.samples), job.samples)
        batches = [order[start : start + job.batch_size] for start in range(0, len(order), job.batch_size)]
        pending: deque[list[Future[None]]] = deque()
        for step in range(len(batches) + _AHEAD):
            if step < len(batches):
                slot = step % len(ring)
                pending.append([threads.submit(read, n, slot, row) for row, n in enumerate(batches[step])])
            if step >= _AHEAD:
                for reading in pending.popleft():
                    reading.result()
                count = len(batches[step - _AHEAD])
                yield {name: tensor[:count] for name, tensor in ring[(step - _AHEAD) % len(ring)].items()}

    return epoch
