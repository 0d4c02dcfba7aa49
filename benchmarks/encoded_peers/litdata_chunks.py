"""litdata: chunks on the local disk, items of raw bytes; StreamingDataset with its own StreamingDataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import litdata

from encoded_peers import Batch, Epoch, Job, Samples, as_bytes, stacked


def _item(number: int, *, samples: Samples) -> dict[str, bytes]:
    return {name: as_bytes(tensor) for name, tensor in samples[number].items()}


def write(job: Job, samples: Samples, numbers: Sequence[int]) -> None:
    litdata.optimize(
        fn=partial(_item, samples=samples),
        inputs=list(numbers),
        output_dir=str(job.folder / "chunks"),
        chunk_bytes="256MB",
        num_workers=1,
        start_method="fork",
        verbose=False,
    )


def open_loader(job: Job) -> Epoch:
    dataset = litdata.StreamingDataset(str(job.folder / "chunks"), shuffle=True)
    loader = litdata.StreamingDataLoader(
        dataset, batch_size=job.batch_size, num_workers=job.workers, persistent_workers=True, collate_fn=stacked
    )

    def epoch() -> Iterator[Batch]:
        yield from loader

    return epoch
