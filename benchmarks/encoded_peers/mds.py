"""mosaicml-streaming: MDS shards on the local disk, columns of raw bytes; its StreamingDataset under DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import streaming
from streaming.base.util import clean_stale_shared_memory

from encoded_peers import FIELDS, Batch, Epoch, Job, Samples, as_bytes, stacked
from encoded_peers.torch_loader import epochs


def write(job: Job, samples: Samples, numbers: Sequence[int]) -> None:
    columns = dict.fromkeys(FIELDS, "bytes")
    with streaming.MDSWriter(out=str(job.folder / "shards"), columns=columns, size_limit=1 << 28) as out:
        for number in numbers:
            out.write({name: as_bytes(tensor) for name, tensor in samples[number].items()})


def open_loader(job: Job) -> Epoch:
    clean_stale_shared_memory()
    dataset = streaming.StreamingDataset(
        local=str(job.folder / "shards"), shuffle=True, batch_size=job.batch_size, num_canonical_nodes=1
    )
    loader = epochs(dataset, job, collate=stacked, shuffle=False)

    def epoch() -> Iterator[Batch]:
        yield from loader

    return epoch
