"""WebDataset: tar shards read in a row by each worker, decoded with PIL, batched in the worker (its documented way)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import webdataset
from torchvision import transforms

from peers import Epoch, Job


def open_loader(job: Job) -> Epoch:
    pixels = transforms.Compose(
        [
            transforms.Resize(job.size, interpolation=transforms.InterpolationMode.LANCZOS),
            transforms.CenterCrop(job.size),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )
    shards = [str(path) for path in sorted(job.shards.glob("*.tar"))]
    data = (
        webdataset.WebDataset(shards, shardshuffle=len(shards))
        .shuffle(32)
        .decode("pil")
        .to_tuple("jpg")
        .map_tuple(pixels)
        .batched(job.batch_size)
    )
    loader = webdataset.WebLoader(data, batch_size=None, num_workers=job.workers, persistent_workers=True)

    def epoch() -> Iterator[torch.Tensor]:
        for (batch,) in loader:
            yield batch

    return epoch
